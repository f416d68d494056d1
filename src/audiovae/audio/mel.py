"""Mel filters: triangles, evenly spaced in pitch, that sum neighbouring bins of a magnitude spectrum.

Two scales of pitch.  Slaney (Auditory Toolbox 1998): linear to 1 kHz, 200/3 Hz a mel, then logarithmic, 27 mels to a
factor 6.4.  HTK: 2595 log10(1 + f / 700).  The Slaney norm divides a triangle by half its width in Hz, which gives every
filter the same area.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from audiovae.errors import ConfigError

MelScale = Literal["slaney", "htk"]

_KNEE_HZ = 1_000.0
_KNEE_MEL = 15.0  # 1000 Hz at 200/3 Hz a mel
_LOG_STEP = math.log(6.4) / 27


def hz_to_mel(hz: Tensor, scale: MelScale = "slaney") -> Tensor:
    """Frequency in Hz to mels.

    >>> hz_to_mel(torch.tensor([500.0, 1000.0])).tolist()
    [7.5, 15.0]
    """
    if scale == "htk":
        return 2_595 * torch.log10(1 + hz / 700)
    above = _KNEE_MEL + torch.log(hz.clamp(min=_KNEE_HZ) / _KNEE_HZ) / _LOG_STEP
    return torch.where(hz < _KNEE_HZ, hz * 3 / 200, above)


def mel_to_hz(mel: Tensor, scale: MelScale = "slaney") -> Tensor:
    """Mels to frequency in Hz; the inverse of `hz_to_mel`."""
    if scale == "htk":
        return 700 * (10 ** (mel / 2_595) - 1)
    above = _KNEE_HZ * torch.exp((mel.clamp(min=_KNEE_MEL) - _KNEE_MEL) * _LOG_STEP)
    return torch.where(mel < _KNEE_MEL, mel * 200 / 3, above)


@cache
def mel_filters(
    sample_rate: int,
    n_fft: int,
    n_mels: int,
    *,
    low_hz: float = 0.0,
    high_hz: float | None = None,
    scale: MelScale = "slaney",
    slaney_norm: bool = True,
) -> Tensor:
    """Weights [n_mels, n_fft // 2 + 1] in float32 that turn a magnitude spectrum into mel bands.

    `low_hz` to `high_hz` (half the sample rate if None) is covered.  Equal to librosa.filters.mel.  A band narrower than
    a bin may be empty.  The result is shared between callers: do not write into it.  It is on the CPU whatever torch's
    default device is.
    Raises ConfigError if the range of frequencies is empty or there is no band.
    """
    high_hz = sample_rate / 2 if high_hz is None else high_hz
    if not 0 <= low_hz < high_hz or n_mels < 1:
        raise ConfigError(
            f"mel filters need 0 <= low_hz < high_hz and n_mels >= 1, got {low_hz} Hz to {high_hz} Hz "
            f"in {n_mels} bands"
        )
    kind: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"}
    ends = hz_to_mel(torch.tensor([low_hz, high_hz], **kind), scale)
    steps = torch.linspace(0, 1, n_mels + 2, **kind)
    edges = mel_to_hz(ends[0] + (ends[1] - ends[0]) * steps, scale)  # [n_mels + 2]
    bins = torch.arange(n_fft // 2 + 1, **kind) * sample_rate / n_fft  # [N]
    rise = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]  # [n_mels, N]
    fall = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    weights = torch.minimum(rise, fall).clamp(min=0)
    if slaney_norm:
        weights = weights * (2 / (edges[2:] - edges[:-2]))[:, None]
    return weights.float()


def mel_bands(magnitude: Tensor, sample_rate: int, n_fft: int, n_mels: int) -> Tensor:
    """Sum a magnitude spectrum into Slaney's mel bands.  [R, F, N] -> [R, F, n_mels].

    Equal to magnitude @ mel_filters(...).mT, with less work: most of the filters' weights are zero, so the
    bands are taken 40 at a time, each group from the bins that it covers.
    """
    filters = mel_filters(sample_rate, n_fft, n_mels).to(magnitude)
    bands: Tensor = _Bands.apply(magnitude, filters, _groups(sample_rate, n_fft, n_mels))  # type: ignore[no-untyped-call]
    return bands


@cache
def _groups(sample_rate: int, n_fft: int, n_mels: int) -> tuple[tuple[slice, slice], ...]:
    """(bands, bins) of each group; together they hold every weight that is not zero."""
    filters = mel_filters(sample_rate, n_fft, n_mels)
    groups = []
    for first in range(0, n_mels, 40):
        bands = slice(first, min(first + 40, n_mels))
        covered = filters[bands].any(0).nonzero().flatten()
        if len(covered):
            groups.append((bands, slice(int(covered[0]), int(covered[-1]) + 1)))
    return tuple(groups)


class _Bands(torch.autograd.Function):
    """The product with the filters and its adjoint, group by group."""

    @staticmethod
    def forward(
        ctx: Any, magnitude: Tensor, filters: Tensor, groups: tuple[tuple[slice, slice], ...]
    ) -> Tensor:
        ctx.save_for_backward(filters)
        ctx.groups = groups
        result = magnitude.new_zeros(*magnitude.shape[:-1], len(filters))
        for bands, bins in groups:
            result[..., bands] = magnitude[..., bins] @ filters[bands, bins].mT
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (filters,) = ctx.saved_tensors
        result = grad.new_zeros(*grad.shape[:-1], filters.shape[1])
        for bands, bins in ctx.groups:
            result[..., bins] += grad[..., bands] @ filters[bands, bins]
        return result, None, None
