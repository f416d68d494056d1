"""Tokens with a global factor that is known exactly: where a token VAE has something to put into its latent.

Three streams of bits; in each, a bit of the sequence's own says whether the stream tends to stay or to alternate:

    x[k, 0] uniform,    x[k, n] = x[k, n-1] xor c[k] with probability 1 - noise, else uniform,    c[k] in {0, 1}

Each frame by itself is uniform whatever c is: only pairs of neighbours tell it, so that an encoder does not find it at
once.  A decoder that sees one frame back learns nothing of c from it.  L frames cost it at least

    without z    3 L log 2
    with z       6 log 2 + 3 (L - 1) H(noise / 2),     H(p) = -p log p - (1 - p) log(1 - p)

nats, 3 log 2 of the second line being the price of c.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from audiovae.data.base import Batch, stack
from audiovae.data.tokens import TokenSettings, TokenSpec
from audiovae.errors import DataError
from audiovae.nn.noise import mix

FORMAT = 1  # of the sequences; a change of what they are must raise it
STREAMS = 3  # bits of the factor, and bits in a frame
SEQUENCES = 0x746F6B73  # sets these draws apart from others that are seeded by (seed, step, item)


class TokenSourceData(TokenSettings):
    """Endless sequences of three streams of bits."""

    kind: Literal["token_source"] = "token_source"
    segment_seconds: float = Field(0.375, gt=0, le=600)  # 24 frames at the preset's rate
    noise: float = Field(0.35, ge=0, le=1)  # share of the steps that are a coin's
    valid_crops: int = Field(512, ge=1)


class BestBound(NamedTuple):
    """Nats that a sequence costs at least, for a decoder that sees one frame back."""

    without_z: float
    with_z: float  # the 3 log 2 of the factor among them


def best_bound(noise: float, frames: int) -> BestBound:
    """The negative ELBO that no training can beat, by the formulas above.

    >>> [round(nats, 1) for nats in best_bound(0.35, 24)]
    [49.9, 36.2]
    """
    p = torch.tensor([noise / 2, 1 - noise / 2], dtype=torch.float64)
    bits = STREAMS * math.log(2)
    entropy = float(torch.special.entr(p).sum())
    return BestBound(frames * bits, 2 * bits + STREAMS * (frames - 1) * entropy)


def open_token_source(config: TokenSourceData, spec: TokenSpec) -> TokenSource:
    """Return the sequences.  Raises DataError for a model of other tokens than three bits."""
    if spec.codebook_sizes != (2,) * STREAMS:
        raise DataError(
            f"token_source has {STREAMS} codebooks of 2 codes, the model has codebooks of "
            f"{', '.join(map(str, spec.codebook_sizes))}; set model.codebook_sizes to {[2] * STREAMS}"
        )
    return TokenSource(config, spec)


class TokenSource:
    """Endless sequences x [B, 3, L]; the label "factor" [B, 3] holds c."""

    def __init__(self, config: TokenSourceData, spec: TokenSpec) -> None:
        self.config = config
        self.length = spec.crop_frames(config.segment_seconds)  # L

    @property
    def fingerprint(self) -> str:
        """A hash of the settings; the sequences follow from them."""
        text = f"{FORMAT} {self.config.to_json()} {self.length}"
        return hashlib.sha256(text.encode()).hexdigest()

    def train_batch(self, seed: int, step: int, items: range) -> Batch:
        """A new sequence for every (seed, step, item)."""
        return stack(
            [self._item(mix(SEQUENCES, seed, step, i), f"{seed}/{step}/{i}") for i in items]
        )

    def valid_batches(self, batch_size: int) -> Iterator[Batch]:
        """The same `valid_crops` sequences every time."""
        for first in range(0, self.config.valid_crops, batch_size):
            items = range(first, min(first + batch_size, self.config.valid_crops))
            yield stack([self._item(mix(SEQUENCES, i), f"valid/{i}") for i in items])

    def describe(self) -> str:
        """One line: what there is and what its factor is worth."""
        best = best_bound(self.config.noise, self.length)
        return (
            f"endless sequences of {self.length} frames of {STREAMS} bits; a decoder that sees one frame back needs "
            f"{best.without_z:.1f} nats each, {best.with_z:.1f} with the factor in its latent"
        )

    def _item(self, seed: int, name: str) -> Batch:
        x, factor = sequence(seed, self.length, self.config.noise)
        return Batch(x[None], None, {"factor": factor[None]}, (f"token_source/{name}@0",))


def sequence(seed: int, length: int, noise: float) -> tuple[Tensor, Tensor]:
    """One sequence x [3, length] and its factor c [3], int64."""
    chance = torch.Generator().manual_seed(seed)
    factor = torch.randint(2, (STREAMS, 1), generator=chance)
    coins = torch.randint(2, (STREAMS, length), generator=chance)
    tossed = torch.rand((STREAMS, length), generator=chance, dtype=torch.float64) < noise
    tossed[:, 0] = True
    # between two coins the steps are c: count how many since the last one
    places = torch.arange(length).expand(STREAMS, length)
    last = torch.where(tossed, places, 0).cummax(1).values
    return coins.gather(1, last) ^ (factor * (places - last) & 1), factor[:, 0]
