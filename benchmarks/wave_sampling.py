"""How many samples a second a WaveNet draws, for one sound, one after another.

    python benchmarks/wave_sampling.py [--rounds 5] [--out docs/results/wave_sampling.json] [--quick]

`wave_vae` as its preset makes it, 30 layers of 64 channels, with fresh weights. naive: torch over the whole receptive
field for each sample; cached: torch with each layer's past kept in a ring; kernel: the compiled kernel, with weights in
fp32 and in bf16. All draw with the same random numbers and take turns, round by round. Rounds are kept: a run that was
stopped goes on.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
from _timing import cpu_seconds, machine, one_thread, open_results, paragraph, write_page
from torch import Tensor

from audiovae.models import wave_kernel
from audiovae.models.wave_ar import TorchVoice, Voice, WaveVAE, WaveVAEConfig, wave_vae
from audiovae.models.wave_kernel import KernelVoice
from audiovae.nn.next_sample import UNIFORMS, compress

SAMPLES = {"naive": 1, "cached": 256, "kernel": 4096, "kernel bf16": 4096}  # drawn at once
AT_LEAST = 2.0  # CPU seconds that a figure rests on
PAIRS = [(ours, theirs) for ours in ("kernel", "kernel bf16") for theirs in ("cached", "naive")]


class NaiveVoice:
    """Draws as a WaveNet without a memory must: each sample from all that it hears, anew."""

    def __init__(self, model: WaveVAE) -> None:
        self.model = model
        self.reach = sum(model.decoder.dilations) + 1
        self.x = torch.zeros(1, 0)
        self.conditions = torch.zeros(1, model.decoder.condition_width, 0)  # of each sample

    @torch.no_grad()
    def draw(self, condition: Tensor, uniforms: Tensor, temperature: float) -> Tensor:
        """condition [1, C, F], uniforms [1, T, 2], F a divisor of T -> x [1, T]."""
        count = uniforms.shape[1]
        each = condition.repeat_interleave(count // condition.shape[2], 2)
        for t in range(count):
            self.conditions = torch.cat([self.conditions, each[..., t : t + 1]], 2)
            heard = torch.nn.functional.pad(compress(self.x), (1, 0))
            said = self.model.decoder(heard[:, -self.reach :], self.conditions[..., -self.reach :])
            drawn = self.model.family.draw(said[..., -1], uniforms[:, t], temperature)
            self.x = torch.cat([self.x, drawn[:, None]], 1)
        return self.x[:, -count:]


def voices(model: WaveVAE) -> dict[str, Voice]:
    """Every way to draw, by the name that its figures have.  Raises RuntimeError without a compiler."""
    compiled = wave_kernel.library()
    if compiled is None:
        raise RuntimeError("the kernel is what is measured here: install gcc or clang")
    net, family = model.decoder, model.family
    return {
        "naive": NaiveVoice(model),
        "cached": TorchVoice(net, family, 1),
        "kernel": KernelVoice(compiled, net, family, 1),
        "kernel bf16": KernelVoice(compiled, net, family, 1, "bf16"),
    }


def samples_per_second(model: WaveVAE) -> dict[str, float]:
    """Of each way, after as many samples as it hears."""
    condition = model.condition(torch.randn(1, model.latent_dim, 1)).detach()
    found = {}
    for name, voice in voices(model).items():
        if isinstance(voice, NaiveVoice):  # as if it had drawn so many
            voice.x = torch.zeros(1, voice.reach)
            voice.conditions = condition.expand(-1, -1, voice.reach)
        uniforms = torch.rand(1, SAMPLES[name], UNIFORMS, dtype=torch.float64)
        voice.draw(condition, uniforms, 1.0)  # warms up
        seconds = cpu_seconds(lambda: voice.draw(condition, uniforms, 1.0), AT_LEAST)  # noqa: B023
        found[name] = SAMPLES[name] / seconds
    return found


def measure(out: Path, rounds: int, config: WaveVAEConfig) -> str:
    """Time all ways in turns, write the results and return the page."""
    one_thread()
    torch.manual_seed(0)
    results = open_results(out)
    model = WaveVAE(config).eval()
    key = {"config": config.model_dump(mode="json"), "machine": machine()}
    played = []
    for number in range(rounds):
        row = results.row({"round": number, **key}, lambda: samples_per_second(model))
        played.append({name: float(row[name]) for name in SAMPLES})
        print(f"round {number}: {played[-1]}", flush=True)
    speeds = {name: statistics.median(r[name] for r in played) for name in SAMPLES}
    results.put("samples_per_second", speeds)
    rows = [
        {
            "way": name,
            "samples_per_second": speed,
            f"times real time at {config.sample_rate / 1000:g} kHz": speed / config.sample_rate,
        }
        for name, speed in speeds.items()
    ]
    found = {
        f"{ours}/{theirs}": statistics.median(r[ours] / r[theirs] for r in played)
        for ours, theirs in PAIRS
    }
    return write_page(results, "Speed of sample-by-sample sound", paragraph(__doc__), rows, found)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=paragraph(__doc__))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("docs/results/wave_sampling.json"))
    parser.add_argument("--quick", action="store_true", help="a tiny net, one round, nothing kept")
    options = parser.parse_args()
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            page = measure(Path(folder, "wave_sampling.json"), 1, wave_vae(0))
    else:
        page = measure(options.out, options.rounds, wave_vae())
    print(page)


if __name__ == "__main__":
    main()
