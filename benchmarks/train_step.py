"""Seconds of audio per CPU second of a full training step: spec_frame, Oobleck and DAC.

    python benchmarks/train_step.py [--rounds 5] [--out docs/results/train_step.json] [--quick]

A step is forward, the default objective (the same spectral losses for all), backward, clipping and AdamW. Each net
first finds its own best crop and batch in each precision; then all take turns, round by round. DAC hears one channel
where the others hear two, which is to its advantage. The aim was 100 times Oobleck, best against best. Rows are kept: a
run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

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

from audiovae.evaluation.report import ResultsFile
from audiovae.training.objective import Objective, ObjectiveConfig
from audiovae.training.schedules import Progress

NETS: dict[str, Callable[[bool], Net]] = {
    "spec_frame": _peers.spec_frame,
    "oobleck": _peers.oobleck,
    "dac": _peers.dac,
}
CROPS = (16_384, 65_536)  # samples; DAC's own and Stable Audio's own
BATCHES = (1, 2, 4, 8, 16, 32)
MOST_SAMPLES = {"oobleck": 65_536, "dac": 65_536}  # a step of them takes about 8 GB of memory
AT_LEAST = 1.0  # CPU seconds that a figure rests on


class Grid(NamedTuple):
    """What a net's best batch is searched in."""

    crops: tuple[int, ...]
    batches: tuple[int, ...]


class Trainer:
    """A net with what a step needs."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.net.module.train()
        self.weights = list(net.module.parameters())
        self.optimizer = torch.optim.AdamW(self.weights, 1e-4, fused=True)
        self.objective = Objective(ObjectiveConfig(weights=net.weights), net.sample_rate)
        self.steps = 0

    def step(self, x: torch.Tensor, kind: str) -> None:
        """Forward, losses, backward, clip, AdamW.  x [B, C, T]."""
        with precision(kind):
            out = self.net.reconstruct(x)
        at = Progress(self.steps, 1000, seed=0)
        self.objective(out._replace(x_hat=out.x_hat.float()), x, at).total.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps += 1

    def warm_speed(self, kind: str, crop: int, batch: int) -> float:
        """Seconds of audio per CPU second, after a first step that is not counted."""
        x = 0.1 * torch.randn(batch, self.net.channels, crop)
        self.step(x, kind)
        seconds = cpu_seconds(lambda: self.step(x, kind), AT_LEAST)
        return batch * crop / self.net.sample_rate / seconds


def find_best(
    results: ResultsFile, name: str, trainer: Trainer, kind: str, grid: Grid
) -> dict[str, int]:
    """The crop and batch at which a net trains fastest; batches grow until they stop to pay."""
    speeds: list[tuple[float, dict[str, int]]] = []
    for crop in grid.crops:
        fastest = 0.0
        for batch in grid.batches:
            if batch * crop > MOST_SAMPLES.get(name, 2**21):
                break
            place = {"crop": crop, "batch": batch}
            row = results.row(
                {"phase": "batch", **identity(name, trainer.net), "precision": kind, **place},
                lambda place=place: {"speed": trainer.warm_speed(kind, **place)},  # type: ignore[misc]
            )
            speed = row["speed"]
            print(f"{name} {kind} {batch} x {crop}: {speed:.3g}", flush=True)
            speeds.append((speed, place))
            if speed < 0.97 * fastest:
                break
            fastest = max(fastest, speed)
    return max(speeds, key=lambda found: found[0])[1]


def measure(out: Path, rounds: int, grid: Grid, narrow: bool) -> str:
    """Find each net's best batch, time all in turns, write the results and return the page."""
    one_thread()
    torch.manual_seed(0)
    results = open_results(out)
    trainers = {name: Trainer(make(narrow)) for name, make in NETS.items()}
    entrants = [
        {
            **identity(name, trainer.net),
            "precision": kind,
            **find_best(results, name, trainer, kind, grid),
        }
        for name, trainer in trainers.items()
        for kind in PRECISIONS
    ]

    def play() -> dict[str, float]:
        return {
            f"{e['net']} {e['precision']}": trainers[e["net"]].warm_speed(
                e["precision"], e["crop"], e["batch"]
            )
            for e in entrants
        }

    played = []
    for number in range(rounds):
        row = results.row({"phase": "round", "round": number, "entrants": entrants}, play)
        played.append({key: value for key, value in row.items() if key.endswith(PRECISIONS)})
        print(f"round {number}: {played[-1]}", flush=True)
    rows = [
        {
            "net": e["net"],
            "precision": e["precision"],
            "million weights": e["weights"] / 1e6,
            "batch": e["batch"],
            "crop": e["crop"],
            "audio seconds / second": statistics.median(
                r[f"{e['net']} {e['precision']}"] for r in played
            ),
            "best": e["precision"] == best(played, e["net"]),
        }
        for e in entrants
    ]
    found = ratios(played, [("spec_frame", "oobleck"), ("spec_frame", "dac")])
    return write_page(results, "Speed of training", paragraph(__doc__), rows, found)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=paragraph(__doc__))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("docs/results/train_step.json"))
    parser.add_argument("--quick", action="store_true", help="tiny nets, one round, nothing kept")
    options = parser.parse_args()
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            tiny = Grid(crops=(8192,), batches=(1, 2))
            page = measure(Path(folder, "train_step.json"), 1, tiny, narrow=True)
    else:
        page = measure(options.out, options.rounds, Grid(CROPS, BATCHES), narrow=False)
    print(page)


if __name__ == "__main__":
    main()
