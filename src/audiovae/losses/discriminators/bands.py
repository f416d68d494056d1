"""Multi-band discriminator: a complex spectrum cut into bands, each with convolutions of its own (Kumar et al. 2023, sec. 3.4).

    x [B, C, T] -> X [B, 2 C, F, N] -> for each band five 2-D convolutions -> side by side -> one convolution to the logits

Splitting the bands keeps the loud low ones from being all that is looked at. DAC trains against it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from audiovae.config import Config
from audiovae.losses.discriminators.base import ConvStack, Verdict, normed


class BandsConfig(Config):
    """Which resolutions and bands, and how wide the convolutions are."""

    kind: Literal["bands"] = "bands"
    n_ffts: tuple[Annotated[int, Field(ge=4, multiple_of=4)], ...] = Field(
        (2048, 1024, 512), min_length=1
    )  # samples in a frame; the hop is a quarter
    edges: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)  # of the bands, share of all bins
    width: int = Field(32, ge=1)
    slope: float = Field(0.1, ge=0, lt=1)  # of the leaky ReLU below zero

    @model_validator(mode="after")
    def _edges_rise(self) -> Self:
        edges = self.edges
        if len(edges) < 2 or not all(0 <= a < b <= 1 for a, b in pairwise(edges)):
            raise ValueError(f"edges must rise from 0 at least to 1 at most, got {edges}")
        return self


class BandsDiscriminator(nn.Module):
    """x [B, C, T] -> a verdict for each resolution."""

    def __init__(self, config: BandsConfig, channels: int) -> None:
        super().__init__()
        self.judges = nn.ModuleList(_BandsJudge(config, n_fft, channels) for n_fft in config.n_ffts)

    def forward(self, x: Tensor) -> list[Verdict]:
        """Judge at each resolution."""
        return [judge(x) for judge in self.judges]


class _BandsJudge(nn.Module):
    """All bands of one resolution."""

    def __init__(self, config: BandsConfig, n_fft: int, channels: int) -> None:
        super().__init__()
        bins = [int(edge * (n_fft // 2 + 1)) for edge in config.edges]
        self.n_fft, self.bands = n_fft, list(pairwise(bins))
        self.stacks = nn.ModuleList(_stack(config, channels) for _ in self.bands)
        self.last = normed(nn.Conv2d(config.width, 1, (3, 3), padding=1))

    def forward(self, x: Tensor) -> Verdict:
        planes = _planes(x, self.n_fft)
        ends: list[Tensor] = []
        seen: list[Tensor] = []
        for stack, (first, last) in zip(self.stacks, self.bands, strict=True):
            assert isinstance(stack, ConvStack)
            h, features = stack.features(planes[..., first:last])
            ends.append(h)
            seen += features
        logits: Tensor = self.last(torch.cat(ends, dim=-1))
        return Verdict(logits, tuple(seen))


def _stack(config: BandsConfig, channels: int) -> ConvStack:
    width = config.width
    convs = [normed(nn.Conv2d(2 * channels, width, (3, 9), padding=(1, 4)))]
    convs += [normed(nn.Conv2d(width, width, (3, 9), (1, 2), (1, 4))) for _ in range(3)]
    convs.append(normed(nn.Conv2d(width, width, (3, 3), padding=1)))
    return ConvStack(convs, nn.Identity(), slope=config.slope, tap="activation")


def _planes(x: Tensor, n_fft: int) -> Tensor:
    """x [B, C, T] -> real parts, then imaginary ones [B, 2 C, ceil(T / hop), n_fft / 2 + 1].

    Frames stand where a convolution of this stride would look: three eighths of one reach over either end.
    """
    hop = n_fft // 4
    beside, missing = (n_fft - hop) // 2, -x.shape[-1] % hop
    rows = x.flatten(0, 1)
    if rows.shape[-1] <= n_fft:  # too short to be reflected
        rows = functional.pad(rows, (0, n_fft + 1 - rows.shape[-1]))
        missing = -rows.shape[-1] % hop
    rows = functional.pad(rows, (beside, beside + missing), "reflect")
    window = torch.hann_window(n_fft, dtype=x.dtype, device=x.device)
    spectrum = torch.stft(rows, n_fft, hop, window=window, return_complex=True)[..., 2:-2]
    spectrum = spectrum.unflatten(0, x.shape[:2])  # [B, C, N, F]
    return torch.cat([spectrum.real, spectrum.imag], dim=1).mT
