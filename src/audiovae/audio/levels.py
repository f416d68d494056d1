"""How loud a sound is: peak and RMS against full scale, in dB."""

from __future__ import annotations

import math

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
