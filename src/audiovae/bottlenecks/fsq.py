"""Finite scalar quantization: each number of a small latent is bounded and rounded to one of a few levels.

    digit_i = round(bound(h_i)),     code = digit_1 + L_1 (digit_2 + L_2 (digit_3 + ...)),     z_i in [-1, 1]

(Mentzer 2023.) No codebook to learn, none to collapse, no term beside the reconstruction; the gradient passes the
rounding unchanged. Digits and codes are integers from the rounding on: floats lose codes (stable-codec before 0.1.2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from audiovae.bottlenecks.base import Bottled, Bottleneck
from audiovae.config import Config
from audiovae.errors import expect_codes

LARGEST = 65_536  # codes of a codebook
Level = Annotated[
    int, Field(ge=3, le=256)
]  # of 2 one would begin 3.8 away from 0, where tanh is flat


class FSQConfig(Config):
    """Levels of each number of a codebook; codebooks side by side are alike."""

    kind: Literal["fsq"] = "fsq"
    levels: tuple[Level, ...] = Field((8, 5, 5, 5), min_length=1, max_length=8)  # 1000 codes
    n_codebooks: int = Field(8, ge=1)  # K, side by side: each codes its own numbers

    @model_validator(mode="after")
    def _size_is_possible(self) -> Self:
        if self.codebook_size > LARGEST:
            raise ValueError(
                f"levels {self.levels} make {self.codebook_size} codes, at most {LARGEST} are possible; "
                "take fewer levels, or more codebooks side by side"
            )
        return self

    @property
    def latent_dim(self) -> int:
        """Numbers of a latent frame, D."""
        return self.n_codebooks * len(self.levels)

    @property
    def codebook_size(self) -> int:
        """Codes of a codebook."""
        return math.prod(self.levels)


class FSQ(Bottleneck):
    """h [B, W, F] -> z [B, D, F] in [-1, 1], codes [B, K, F].  With width None, h is [B, D, F]."""

    levels: Tensor  # [d, 1] int64
    steps: Tensor  # [d, 1] int64, what a digit counts in a code

    def __init__(self, config: FSQConfig, width: int | None, frame_rate: float) -> None:
        super().__init__()
        self.config = config
        self.frame_rate = frame_rate
        self.features = nn.Identity() if width is None else nn.Conv1d(width, config.latent_dim, 1)
        steps = [math.prod(config.levels[:i]) for i in range(len(config.levels))]
        self.register_buffer("levels", torch.tensor(config.levels)[:, None], persistent=False)
        self.register_buffer("steps", torch.tensor(steps)[:, None], persistent=False)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Codes of each codebook."""
        return (self.config.codebook_size,) * self.config.n_codebooks

    def forward(
        self, h: Tensor, *, sample: bool, generators: Sequence[torch.Generator] = ()
    ) -> Bottled:
        """Round.  h [B, W, F] -> z [B, D, F], in float32; nothing is drawn and there are no terms."""
        features = self.features(h)
        with torch.autocast(h.device.type, enabled=False):
            bounded = self._bound(features.float().unflatten(1, (-1, len(self.levels))))
            middles = self.levels // 2  # [d, 1]
            digits = bounded.detach().round().long() + middles  # [B, K, d, F], 0 to L - 1
            codes = (digits * self.steps).sum(2)  # [B, K, F]
            straight = bounded - bounded.detach()
            z = self._place(digits) + straight / middles
        return Bottled(z=z.flatten(1, 2), codes=(codes,), moments=None, terms={})

    def from_codes(self, codes: Tensor) -> Tensor:
        """Codes [B, K, F] of all codebooks or the first few -> z [B, D, F], 0 where a codebook is left out.

        Raises LatentError for codes that cannot be.
        """
        expect_codes(codes, self.codebook_sizes)
        z = self._place(codes[:, :, None] // self.steps % self.levels).flatten(1, 2)
        return nn.functional.pad(z, (0, 0, 0, self.config.latent_dim - z.shape[1]))

    def _bound(self, h: Tensor) -> Tensor:
        """Numbers [B, K, d, F] -> such that rounding gives -(L // 2) to (L - 1) // 2; 0 stays 0."""
        half = (
            (self.levels - 1) * (1 + 1e-3) / 2
        )  # [d, 1]; a little more, so that the ends can be reached
        offset = (1 - self.levels % 2) * 0.5  # an even number of levels is not symmetric about 0
        return torch.tanh(h + torch.atanh(offset / half)) * half - offset

    def _place(self, digits: Tensor) -> Tensor:
        """Digits [B, K, d, F] -> where they lie in [-1, 1]."""
        middles = self.levels // 2
        return (digits - middles).float() / middles
