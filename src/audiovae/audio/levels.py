"""How loud a sound is: peak and RMS against full scale in dB, loudness in LUFS.

Loudness (ITU-R BS.1770-4): the sound through a shelf and a high-pass that stand for head and ear, its power in blocks of
400 ms, each 100 ms after the last, summed over channels; the mean of the blocks above -70 LUFS that are no more than 10
below the mean of those.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


def peak(x: Tensor) -> float:
    """The largest absolute sample, full scale is 1; 0 for no samples."""
    return float(x.abs().max()) if x.numel() else 0.0


def rms(x: Tensor) -> float:
    """The root mean square over all channels and samples; 0 for no samples."""
    return math.sqrt(float(x.double().square().mean())) if x.numel() else 0.0


def decibels(value: float) -> float:
    """An amplitude in dB of full scale, -inf for 0.

    >>> decibels(0.5)
    -6.020599913279624
    """
    return 20 * math.log10(value) if value > 0 else -math.inf


def amplitude(level_db: float) -> float:
    """The amplitude of a level in dB; the inverse of `decibels`.

    >>> amplitude(-20)
    0.1
    """
    return float(10 ** (level_db / 20))


class Biquad(NamedTuple):
    """A second-order filter; a[0] is 1."""

    b: tuple[float, float, float]
    a: tuple[float, float, float]

    def response(self, z: Tensor) -> Tensor:
        """The complex gain at z^-1."""
        above, below = ((c[0] + c[1] * z + c[2] * z * z) for c in (self.b, self.a))
        return above / below


ABSOLUTE_GATE, RELATIVE_GATE = -70.0, -10.0  # LUFS, LU
BLOCK_SECONDS, BLOCK_STEP = 0.4, 0.1


def loudness(x: Tensor, sample_rate: int) -> float:
    """The integrated loudness of x [C, T] in LUFS, -inf for silence; a sound under 400 ms is one block, with silence."""
    size, step = round(BLOCK_SECONDS * sample_rate), round(BLOCK_STEP * sample_rate)
    y = torch.nn.functional.pad(_k_weighted(x, sample_rate), (0, max(0, size - x.shape[-1])))
    power = y.unfold(-1, size, step).square().mean(-1).sum(0)  # [blocks]
    loud = power > _power(ABSOLUTE_GATE)
    if not bool(loud.any()):
        return -math.inf
    gate = float(power[loud].mean()) * 10 ** (RELATIVE_GATE / 10)
    return -0.691 + 10 * math.log10(float(power[loud & (power > gate)].mean()))


def _power(lufs: float) -> float:
    return float(10 ** ((lufs + 0.691) / 10))


def _k_weighted(x: Tensor, sample_rate: int) -> Tensor:
    """x [C, T] -> the same in float64, through both filters."""
    n = x.shape[-1] + sample_rate // 4  # their tails die out within a quarter of a second
    z = torch.exp(-2j * math.pi * torch.arange(n // 2 + 1, dtype=torch.float64) / n)
    response = _shelf(sample_rate).response(z) * _high_pass(sample_rate).response(z)
    y: Tensor = torch.fft.irfft(torch.fft.rfft(x.double(), n) * response.to(x.device), n)
    return y[..., : x.shape[-1]]


def _shelf(sample_rate: int) -> Biquad:
    """4 dB up above 1.7 kHz; at 48 kHz the standard's coefficients."""
    k = math.tan(math.pi * 1681.974450955533 / sample_rate)
    high = 10 ** (3.999843853973347 / 20)
    band, q = high**0.4996667741545416, 0.7071752369554196
    scale = 1 + k / q + k * k
    b = (high + band * k / q + k * k, 2 * (k * k - high), high - band * k / q + k * k)
    a = (1.0, 2 * (k * k - 1) / scale, (1 - k / q + k * k) / scale)
    return Biquad((b[0] / scale, b[1] / scale, b[2] / scale), a)


def _high_pass(sample_rate: int) -> Biquad:
    """Nothing below 38 Hz; at 48 kHz the standard's coefficients."""
    k, q = math.tan(math.pi * 38.13547087602444 / sample_rate), 0.5003270373238773
    scale = 1 + k / q + k * k
    return Biquad((1.0, -2.0, 1.0), (1.0, 2 * (k * k - 1) / scale, (1 - k / q + k * k) / scale))
