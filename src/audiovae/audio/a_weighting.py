"""A-weighting as a short linear-phase filter, for losses that should hear as ears do.

The analogue curve of IEC 61672 is brought to the sample rate by the bilinear transform, and the magnitude of that is
fitted by a symmetric filter of odd length in the least-squares sense,

    minimise  sum over bands [f0, f1]  integral (A(f) - D(f))^2 df,     A(f) = sum_n a[n] cos(2 pi f n)

with D linear within a band: a linear system whose integrals have closed forms (as in Selesnick's and scipy's firls).
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor

TAPS = 101
POINTS = 512  # of the curve; a band lies between points 0 and 1, 2 and 3, ...
POLES_HZ = (20.598997, 107.65265, 737.86223, 12194.217)
GAIN_DB = 1.9997  # so that 1 kHz has 0 dB


@cache
def a_weighting_filter(sample_rate: int) -> Tensor:
    """The taps [101] in float32; shared between callers: do not write into it."""
    frequencies = np.arange(POINTS) / (2 * POINTS)  # cycles per sample
    return torch.from_numpy(_least_squares(frequencies, _curve(frequencies, sample_rate))).float()


def a_weighted(x: Tensor, sample_rate: int) -> Tensor:
    """x [..., T] -> the same shape, filtered, in step with x; silence is taken to be beyond its ends."""
    taps = a_weighting_filter(sample_rate).to(x)
    rows = x.reshape(-1, 1, x.shape[-1])
    filtered: Tensor = torch.nn.functional.conv1d(rows, taps[None, None], padding=TAPS // 2)
    return filtered.reshape(x.shape)


def _curve(frequencies: np.ndarray, sample_rate: int) -> np.ndarray:
    """The magnitude at cycles per sample."""
    s = 2j * sample_rate * np.tan(np.pi * frequencies)  # where the bilinear transform takes them
    f1, f2, f3, f4 = (2 * math.pi * f for f in POLES_HZ)
    below = (s + f1) ** 2 * (s + f2) * (s + f3) * (s + f4) ** 2
    above = f4**2 * 10 ** (GAIN_DB / 20) * s**4
    curve: np.ndarray = np.abs(above / below)
    return curve


def _least_squares(frequencies: np.ndarray, desired: np.ndarray) -> np.ndarray:
    """The symmetric filter of TAPS whose amplitude is nearest to the desired one."""
    low, high = 2 * frequencies[::2], 2 * frequencies[1::2]  # in units of half the sample rate
    slope = (desired[1::2] - desired[::2]) / (high - low)
    start = desired[::2] - slope * low
    half = TAPS // 2
    n = np.arange(2 * half + 1)
    # integral of cos(pi n f) over the bands
    q = (high[:, None] * np.sinc(n * high[:, None]) - low[:, None] * np.sinc(n * low[:, None])).sum(
        0
    )
    i = np.arange(half + 1)
    system = (q[np.abs(i[:, None] - i)] + q[i[:, None] + i]) / 2
    sums = np.zeros(half + 1)
    for f, sign in ((high, 1.0), (low, -1.0)):
        line = (start + slope * f)[:, None] * f[:, None] * np.sinc(i * f[:, None])
        bend = np.zeros_like(line)
        bend[:, 1:] = slope[:, None] * np.cos(np.pi * i[1:] * f[:, None]) / (np.pi * i[1:]) ** 2
        bend[:, 0] = -slope * f**2 / 2
        sums += sign * (line + bend).sum(0)
    a = np.linalg.lstsq(system, sums, rcond=None)[0]
    return np.concatenate([a[:0:-1] / 2, a[:1], a[1:] / 2])
