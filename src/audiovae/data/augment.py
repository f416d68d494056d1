"""Changes to a crop that a listener would not call a change of the music: level, polarity, phase, sides.

Phase is turned by a second-order all-pass (RAVE's augmentation, Caillon and Esling 2021) with poles at
r exp(+-i w), w log-uniform in frequency:

    H(z) = (r^2 - 2 r cos(w) z^-1 + z^-2) / (1 - 2 r cos(w) z^-1 + r^2 z^-2),    |H| = 1 on the unit circle
"""

from __future__ import annotations

import math
from random import Random

import torch
from pydantic import Field
from torch import Tensor

from audiovae.audio.levels import amplitude, loudness, peak
from audiovae.config import Config

POLE = 0.9  # r; the impulse response falls below 1e-7 within 160 samples
TAIL = 256  # samples of silence that keep the end of a crop out of its start
TURN_HZ = (20.0, 8_000.0)  # where the phase turns fastest


class Augment(Config):
    """How likely each change is, and how large; all zero leaves every crop as it is."""

    loudness_lufs: float | None = Field(None, ge=-60, le=0)  # of every crop; None: as it is
    gain: float = Field(default=0.5, ge=0, le=1)  # probability
    gain_db: float = Field(default=6.0, ge=0, le=60)  # at most, up or down; never past full scale
    # off: they ask for a wider world than minutes of training teach; try 0.5 each for hours
    polarity: float = Field(default=0.0, ge=0, le=1)
    phase: float = Field(default=0.0, ge=0, le=1)
    swap: float = Field(default=0.0, ge=0, le=1)  # of the two channels


def augment(x: Tensor, sample_rate: int, settings: Augment, rng: Random) -> Tensor:
    """Change a crop [C, T]. The number of draws is fixed, so one setting does not move the others."""
    gain, polarity, phase, swap = (rng.random() for _ in range(4))
    level, turn = rng.random(), rng.random()
    if settings.loudness_lufs is not None:
        x = at_loudness(x, sample_rate, settings.loudness_lufs)
    if phase < settings.phase:
        x = all_pass(x, turn_frequency(turn, sample_rate), sample_rate)
    if swap < settings.swap and len(x) == 2:
        x = x.flip(0)
    if polarity < settings.polarity:
        x = -x
    if gain < settings.gain:
        x = x * bounded_gain(x, settings.gain_db * (2 * level - 1))
    return x


def at_loudness(x: Tensor, sample_rate: int, lufs: float) -> Tensor:
    """x [C, T] at this loudness, or at full scale where that is less; silence stays."""
    now = loudness(x, sample_rate)
    if not math.isfinite(now):
        return x
    louder = x * amplitude(lufs - now)
    return louder / max(1.0, peak(louder))


def bounded_gain(x: Tensor, level_db: float) -> float:
    """The factor of a gain in dB, as far as it does not lift x past full scale."""
    wanted = amplitude(level_db)
    return min(wanted, max(1.0, 1 / peak(x))) if wanted > 1 and peak(x) > 0 else wanted


def turn_frequency(u: float, sample_rate: int) -> float:
    """A frequency in Hz, log-uniform for u uniform in [0, 1), below 0.45 of the rate."""
    low, high = TURN_HZ[0], min(TURN_HZ[1], 0.45 * sample_rate)
    return float(low * (high / low) ** u)


def all_pass(x: Tensor, frequency: float, sample_rate: int) -> Tensor:
    """Turn the phase of x [C, T] around a frequency in Hz; every magnitude stays."""
    n = x.shape[-1] + TAIL
    w = 2 * math.pi * frequency / sample_rate
    z = torch.exp(-1j * torch.arange(n // 2 + 1, dtype=torch.float64) * (2 * math.pi / n))  # z^-1
    middle = -2 * POLE * math.cos(w) * z
    response = (POLE**2 + middle + z**2) / (1 + middle + POLE**2 * z**2)
    y: Tensor = torch.fft.irfft(torch.fft.rfft(x.double(), n) * response, n)
    return y[..., : x.shape[-1]].to(x.dtype)
