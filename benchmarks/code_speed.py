"""How many times faster than real time a net encodes and decodes ten seconds of sound, in one piece.

    python benchmarks/code_speed.py [--rounds 3] [--out docs/results/code_speed.json] [--quick]

spec_frame beside Oobleck, DAC 44 kHz and EnCodec 24 kHz, each with fresh weights, in fp32 and under bf16 autocast,
all taking turns, round by round. DAC and EnCodec hear one channel where the others hear two, which is to their
advantage. Rounds are kept: a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import _peers
import torch
from _peers import Net
from _timing import (
    PRECISIONS,
    best,
    cpu_seconds,
    identity,
    one_thread,
    open_results,
    paragraph,
    precision,
    ratios,
    write_page,
)

NETS: dict[str, Callable[[bool], Net]] = {
    "spec_frame": _peers.spec_frame,
    "oobleck": _peers.oobleck,
    "dac": _peers.dac,
    "encodec": _peers.encodec,
}
SECONDS = 10.0
AT_LEAST = 1.0  # CPU seconds that a figure rests on


@torch.inference_mode()
def times_real_time(nets: dict[str, Net], seconds: float) -> dict[str, float]:
    """Seconds of audio per CPU second of each net, way and precision: {"dac_encode fp32": ...}."""
    found = {}
    for name, net in nets.items():
        samples = int(seconds * net.sample_rate) // 2048 * 2048  # whole frames of every net
        x = 0.1 * torch.randn(1, net.channels, samples)
        for kind in PRECISIONS:
            with precision(kind):
                code = net.encode(x[..., : samples // 4])  # warms up, briefly
                net.decode(code)
                code = net.encode(x)
                encode = cpu_seconds(lambda net=net, x=x: net.encode(x), AT_LEAST)
                decode = cpu_seconds(lambda net=net, code=code: net.decode(code), AT_LEAST)
            found[f"{name}_encode {kind}"] = samples / net.sample_rate / encode
            found[f"{name}_decode {kind}"] = samples / net.sample_rate / decode
    return found


def measure(out: Path, rounds: int, seconds: float, narrow: bool) -> str:
    """Time all nets in turns, write the results and return the page."""
    one_thread()
    torch.manual_seed(0)
    results = open_results(out)
    nets = {name: make(narrow) for name, make in NETS.items()}
    for net in nets.values():
        net.module.eval()
    entrants = [identity(name, net) for name, net in nets.items()]
    played = []
    for number in range(rounds):
        row = results.row(
            {"phase": "round", "round": number, "seconds": seconds, "entrants": entrants},
            lambda: times_real_time(nets, seconds),
        )
        played.append({key: value for key, value in row.items() if key.endswith(PRECISIONS)})
        print(f"round {number}: {played[-1]}", flush=True)
    rows = [
        {
            "net": e["net"],
            "million weights": e["weights"] / 1e6,
            "way": way,
            **{
                f"{kind}, times real time": statistics.median(
                    r[f"{e['net']}_{way} {kind}"] for r in played
                )
                for kind in PRECISIONS
            },
            "best": best(played, f"{e['net']}_{way}"),
        }
        for e in entrants
        for way in ("encode", "decode")
    ]
    pairs = [
        (f"spec_frame_{way}", f"{name}_{way}")
        for name in nets
        if name != "spec_frame"
        for way in ("encode", "decode")
    ]
    return write_page(results, "Speed of coding", paragraph(__doc__), rows, ratios(played, pairs))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=paragraph(__doc__))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("docs/results/code_speed.json"))
    parser.add_argument("--quick", action="store_true", help="tiny nets, one round, nothing kept")
    options = parser.parse_args()
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            page = measure(Path(folder, "code_speed.json"), 1, 0.5, narrow=True)
    else:
        page = measure(options.out, options.rounds, SECONDS, narrow=False)
    print(page)


if __name__ == "__main__":
    main()
