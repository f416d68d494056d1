"""A hierarchy of codes heard level by level: from the top alone, from two levels, from all three.

    python benchmarks/hierarchy.py [--minutes 15] [--size 2]

One model of three levels, trained for some minutes on single notes at 24 kHz mono; notes that it never saw, decoded from
the coarse levels' codes alone. Rates are those of packed codes. Detail grows if each row is better than the one above.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from _quality import identity, page, trained
from _timing import open_results
from torch import Tensor

from audiovae.data import open_dataset
from audiovae.data.notes import NotesData
from audiovae.evaluation import score
from audiovae.models import Autoencoder, resolve
from audiovae.training.config import TrainConfig

METRICS = ("mel", "stft", "si_sdr")
ROWS = ("top", "top and middle", "all three")
HELD_OUT = NotesData(valid_crops=64)


def config_of(minutes: float, size: int) -> TrainConfig:
    """The training behind all rows."""
    options = {"size": size, "sample_rate": 24_000, "channels": 1}
    return TrainConfig(
        model=resolve("hierarchy", options),
        data=NotesData(),
        minutes=minutes,
        tensorboard=False,
    )


@torch.no_grad()
def level_scores(model: Autoencoder, clips: Iterable[Tensor], levels: int) -> dict[str, float]:
    """The mean of each metric over clips [B, C, T] decoded from the first levels, and the rate of their codes."""
    found: list[dict[str, float]] = []
    for x in clips:
        codes = model.encode(x).codes[:levels]
        seconds = x.shape[-1] / model.sample_rate
        bits = sum(
            level.shape[-1] * math.log2(size)
            for level, sizes in zip(codes, model.codebook_sizes, strict=False)
            for size in sizes
        )
        x_hat = model.decode(codes, x.shape[-1])
        rate = {"bits_per_second": bits / seconds}
        found.append(rate | score(x, x_hat, model.sample_rate, METRICS))
    return {name: sum(row[name] for row in found) / len(found) for name in found[0]}


def main() -> None:
    """Train if that is missing, score each number of levels, write the page, print it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--size", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("docs/results/hierarchy.json"))
    options = parser.parse_args()
    config = config_of(options.minutes, options.size)
    results = open_results(options.out)
    shared: dict[str, Any] = {"minutes": options.minutes, **identity(config)}

    def computed(levels: int) -> dict[str, float]:
        model = trained(config)
        held_out = open_dataset(HELD_OUT, sample_rate=model.sample_rate, channels=model.channels)
        clips = [batch.x for batch in held_out.valid_batches(1)]
        return level_scores(model, clips, levels)

    keys = [{"levels": row} | shared for row in ROWS]
    for levels, key in enumerate(keys, start=1):
        results.row(key, lambda levels=levels: computed(levels))  # type: ignore[misc]
    print(page(results, "A hierarchy of codes, level by level", __doc__, keys))


if __name__ == "__main__":
    main()
