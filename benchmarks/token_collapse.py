"""Posterior collapse, reproduced and prevented: a token VAE on sequences whose one global factor is known.

    python benchmarks/token_collapse.py [--steps 600] [--seeds 3]

An autoregressive token VAE that sees one frame back, on sequences of 24 frames of the data `token_source`, one latent
for each: what has to go through it is 3 bits, 2.08 nats, and using them pays (the bounds below are exact). Trained as
it is, it learns to do without; each remedy wakes the latent, although so short a training does not bring it to the
bound. Weights decay strongly (1.0), else a dead latent is found again by chance; the target rate begins at beta 0.2,
since a latent that died before the controller lowered beta overshoots when it wakes. Held-out negative ELBO and KL in
nats a sequence, by a draw from the posterior, averaged weights; no training of this decoder can beat the lower bounds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from _timing import open_results, paragraph, write_page

from audiovae.data import TokenSourceData
from audiovae.data.token_source import best_bound
from audiovae.models import resolve
from audiovae.training import TrainConfig, run
from audiovae.training.config import OptimizerConfig
from audiovae.training.objective import ObjectiveConfig
from audiovae.training.schedules import Schedule

DATA = TokenSourceData()
LENGTH = 24  # frames
MODEL = {
    "size": 0,
    "block": LENGTH,
    "latent_dim": 16,
    "width": 64,
    "hidden": 128,
    "decoder": "autoregressive",
    "history": 1,
    "word_dropout": 0.0,
}
NO_HELP = "no help"
FREE = 0.25  # bits for each of 16 dimensions: 2.8 nats in all
REMEDIES: dict[str, dict[str, Any]] = {
    NO_HELP: {},
    "annealing with free bits": {"beta": Schedule(kind="linear", stop=0.3), "free_bits": FREE},
    "free bits": {"free_bits": FREE},
    # begins below 1: a latent that has died is woken only by so small a beta that its rate then overshoots
    "target rate": {
        "beta": Schedule(high=0.2),
        "target_rate": 4.0 / DATA.segment_seconds,  # 4 nats a sequence
        "control_gain": 0.02,
    },
}


def config_of(remedy: str, steps: int, seed: int) -> TrainConfig:
    """The training of a row."""
    return TrainConfig(
        model=resolve("token_transformer", MODEL),
        data=DATA,
        objective=ObjectiveConfig(**REMEDIES[remedy]),
        # decay keeps an unused latent unused: without it, Adam's steps wander until they find it again
        optimizer=OptimizerConfig(learning_rate=4e-3, weight_decay=1.0),
        steps=steps,
        seed=seed,
        batch_size=32,
        validate_every=steps,
        precision="fp32",
        threads=1,
        device="cpu",
        tensorboard=False,
    )


def train_and_score(config: TrainConfig, folder: Path) -> dict[str, float]:
    """Train a row in a folder of its own; what its last validation says, in nats a sequence."""
    run(config, folder, quiet=True)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    figures = [line["validation"] for line in lines if "validation" in line][-1]
    seconds = DATA.segment_seconds
    return {name: figures[name] * seconds for name in ("negative_elbo", "kl")}


def main() -> None:
    """Train what is missing, write the page, print it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("docs/results/token_collapse.json"))
    options = parser.parse_args()
    results = open_results(options.out)
    rows: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        for remedy in REMEDIES:
            config = config_of(remedy, options.steps, seed)

            def compute(config: TrainConfig = config) -> dict[str, float]:
                with tempfile.TemporaryDirectory() as folder:
                    return train_and_score(config, Path(folder) / "run")

            key = {"remedy": remedy, "seed": seed, "steps": options.steps}
            rows.append(results.row(key, compute))
            print(rows[-1], flush=True)
    bounds = best_bound(DATA.noise, LENGTH)
    rows += [
        {"remedy": "lower bound without z", "negative_elbo": bounds.without_z, "kl": 0.0},
        {"remedy": "lower bound with z", "negative_elbo": bounds.with_z},
    ]
    print(write_page(results, "Posterior collapse and its remedies", paragraph(__doc__), rows))


if __name__ == "__main__":
    main()
