"""Tokens with a global factor that is known exactly: where a token VAE has something to put into its latent.

Each sequence belongs to one of 8 classes (3 bits).  16 tokens, two of them each class's own:

    every token of a sequence is, with probability 1 - noise, one of its class's own two, else any of the 16

Given the class, tokens are independent.  A decoder that sees one token back, L tokens long, costs at least

    without z    log 16 + (L - 1) (H(a, b) - log 16),    p(a, b) = mean over c of p(a | c) p(b | c)      (H in nats)
    with z       log 8 + L H(a | c),                     log 8 of it the price of the class
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
CLASSES = 8
OWN = 2  # tokens of each class
TOKENS = CLASSES * OWN
SEQUENCES = 0x746F6B73  # sets these draws apart from others that are seeded by (seed, step, item)


class TokenSourceData(TokenSettings):
    """Endless sequences, each of a class."""

    kind: Literal["token_source"] = "token_source"
    segment_seconds: float = Field(0.5, gt=0, le=600)  # 32 tokens at the preset's rate
    noise: float = Field(0.6, ge=0, le=1)  # share of the tokens that say nothing of the class
    valid_crops: int = Field(512, ge=1)


class BestBound(NamedTuple):
    """Nats that a sequence costs at least, for a decoder that sees one token back."""

    without_z: float
    with_z: float  # log 8 for the class among them


def best_bound(noise: float, length: int) -> BestBound:
    """The negative ELBO that no training can beat, by the formulas above.

    >>> [round(nats, 1) for nats in best_bound(0.6, 32)]
    [86.5, 79.1]
    """
    p = probabilities(noise)
    pairs = (p[:, :, None] * p[:, None, :]).mean(0)
    first = math.log(TOKENS)
    return BestBound(
        without_z=first + (length - 1) * (_entropy(pairs.flatten()) - first),
        with_z=math.log(CLASSES) + length * _entropy(p[0]),
    )


def probabilities(noise: float) -> Tensor:
    """p(token | class), [8, 16] float64."""
    p = torch.full((CLASSES, TOKENS), noise / TOKENS, dtype=torch.float64)
    own = torch.arange(TOKENS).view(CLASSES, OWN)
    return p.scatter_add(1, own, torch.full_like(p[:, :OWN], (1 - noise) / OWN))


def open_token_source(config: TokenSourceData, spec: TokenSpec) -> TokenSource:
    """Return the sequences.  Raises DataError for a model of other tokens than 16."""
    if spec.codebook_sizes != (TOKENS,):
        raise DataError(
            f"token_source has one codebook of {TOKENS} codes, the model has codebooks of "
            f"{', '.join(map(str, spec.codebook_sizes))}; set model.codebook_sizes to [{TOKENS}]"
        )
    return TokenSource(config, spec)


class TokenSource:
    """Endless sequences x [B, 1, L]; the label "class" [B] holds which of the 8."""

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
            f"endless sequences of {self.length} tokens in {CLASSES} classes; a decoder that sees one token back needs "
            f"{best.without_z:.1f} nats each, {best.with_z:.1f} with the class in its latent"
        )

    def _item(self, seed: int, name: str) -> Batch:
        x, factor = sequence(seed, self.length, self.config.noise)
        return Batch(x[None, None], None, {"class": factor[None]}, (f"token_source/{name}@0",))


def sequence(seed: int, length: int, noise: float) -> tuple[Tensor, Tensor]:
    """One sequence x [length] and its class [], int64."""
    chance = torch.Generator().manual_seed(seed)
    factor = torch.randint(CLASSES, (), generator=chance)
    any_of_all = torch.randint(TOKENS, (length,), generator=chance)
    own = factor * OWN + torch.randint(OWN, (length,), generator=chance)
    noisy = torch.rand(length, generator=chance, dtype=torch.float64) < noise
    return torch.where(noisy, any_of_all, own), factor


def _entropy(p: Tensor) -> float:
    """Nats of a distribution [N]."""
    return float(torch.special.entr(p).sum())
