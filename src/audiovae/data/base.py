"""What a data set is: something that answers "which sound is item i of step s" without remembering anything.

Nothing here has a position that moves. A resumed run, the second process of two and a second look at one item
ask the same question and get the same answer, so none of them needs to save or replay a data loader.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from pydantic import Field
from torch import Tensor

from audiovae.config import Config


def shape_json(settings: Config, exclude: set[str]) -> str:
    """The settings that shape a crop, for a fingerprint.

    Those that came with a later audiovae count only where they change something, so that older runs can be resumed.
    """
    kept = settings.model_dump(mode="json", exclude=exclude)
    augment = kept.get("augment")
    if augment and augment.get("loudness_lufs") is None:
        augment.pop("loudness_lufs", None)
    return json.dumps(kept, separators=(",", ":"), ensure_ascii=False)


class DataSettings(Config):
    """The part of a data set's config that every kind has; each kind has its own default length."""

    # length of a training crop; about what DAC trains on (Kumar et al. 2023: 0.38 s)
    segment_seconds: float = Field(0.375, gt=0, le=600)


class Batch(NamedTuple):
    """B sounds of one length, where they came from and what is known of them.

    A training hears padding as silence; `audiovae.padded` codes a batch without it.
    """

    x: Tensor  # [B, C, T] in [-1, 1], float32
    mask: Tensor | None  # [B, T] bool, True where there is sound and not padding; None if all is
    labels: dict[str, Tensor]  # name -> [B, ...]; empty where nothing is known
    sources: tuple[str, ...]  # "path@seconds" of each item, for the log


class Dataset(Protocol):
    """All that training and evaluation know of where sound comes from."""

    @property
    def fingerprint(self) -> str:
        """A hash of everything the items depend on: the manifest and the settings."""
        ...

    def train_batch(self, seed: int, step: int, items: range) -> Batch:
        """The items of a step. Item i of step s is a pure function of (seed, s, i)."""
        ...

    def valid_batches(self, batch_size: int) -> Iterator[Batch]:
        """The validation crops, always the same ones in the same order; the last batch may be short."""
        ...

    def describe(self) -> str:
        """One line for people: how many files, how long, how they are split."""
        ...


def crop_length(seconds: float, sample_rate: int, multiple_of: int = 1) -> int:
    """Samples in a crop of so many seconds, rounded up to a multiple (a model's hop).

    >>> crop_length(1.0, 24_000, 512)
    24064
    """
    samples = max(1, round(seconds * sample_rate))
    return -(-samples // multiple_of) * multiple_of


def stack(items: Sequence[Batch]) -> Batch:
    """Join batches (usually of one item each) into one; their lengths and labels must agree."""
    masks = [item.mask for item in items]
    joined = None
    if any(mask is not None for mask in masks):
        joined = torch.cat(
            [
                torch.ones_like(b.x[:, 0], dtype=torch.bool) if b.mask is None else b.mask
                for b in items
            ]
        )
    return Batch(
        x=torch.cat([item.x for item in items]),
        mask=joined,
        labels={name: torch.cat([b.labels[name] for b in items]) for name in items[0].labels},
        sources=tuple(source for item in items for source in item.sources),
    )
