"""Tones whose factors are known exactly: for tests, and for measuring what a latent keeps apart.

    x(t) = g(t) [ sum_k a_k sin(k phi(t)) + n(t) ],          a_k ~ k^(tilt / 6.02 dB),  sum a_k^2 / 2 = RMS^2
    phi(t) = 2 pi f0 ( t + delta (1 - cos 2 pi r t) / (2 pi r) )      vibrato of rate r, in closed form
    g(t) = min(1, t / attack) exp(-max(0, t - attack) / decay)
    left, right = cos, sin of (1 + pan) pi / 4                        constant power

Only harmonics that stay below the Nyquist frequency at the top of the vibrato are summed, so nothing
aliases. Everything but the noise n(t) is a function of the factors alone; the noise is drawn from the item.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from random import Random
from typing import Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field

from audiovae.data.base import Batch, DataSettings, crop_length, stack
from audiovae.errors import DataError
from audiovae.nn.noise import mix

FORMAT = 1  # of the tones; a change of what they sound like must raise it
RMS = 0.15  # of the harmonics where the envelope is 1; keeps every peak below 1
VIBRATO_HZ = 5.5
TONES = 0x746F6E65  # sets these draws apart from others that are seeded by (seed, step, item)


class Factors(NamedTuple):
    """All that a tone depends on."""

    pitch: float  # MIDI note number, not only whole ones; 69 is 440 Hz
    tilt: float  # dB that the harmonics lose an octave, negative
    attack: float  # seconds to the full level
    decay: float  # seconds in which it then falls to 1/e
    vibrato: float  # semitones to each side, at 5.5 Hz
    noise: float  # dB of the noise against the harmonics
    pan: float  # -1 left to 1 right


LOW = Factors(36.0, -18.0, 0.002, 0.1, 0.0, -60.0, -1.0)
HIGH = Factors(84.0, -3.0, 0.2, 2.0, 0.5, -20.0, 1.0)
LOGARITHMIC = ("attack", "decay")  # drawn evenly on a logarithmic scale; the others on a linear one


class SynthData(DataSettings):
    """Tones of exactly known factors, made on the fly."""

    kind: Literal["synth"] = "synth"
    segment_seconds: float = Field(1.0, gt=0, le=600)
    harmonics: int = Field(32, ge=1, le=1024)  # at most; fewer where they would pass Nyquist
    valid_crops: int = Field(32, ge=1)


def open_synth(
    config: SynthData, *, sample_rate: int, channels: int, multiple_of: int = 1
) -> SynthDataset:
    """Return the tones at this rate and width.  Raises DataError for more than two channels."""
    if channels not in (1, 2):
        raise DataError(f"tones are mono or stereo, got channels={channels}")
    length = crop_length(config.segment_seconds, sample_rate, multiple_of)
    return SynthDataset(config, sample_rate=sample_rate, channels=channels, length=length)


class SynthDataset:
    """Endless tones; labels are the factors, float32 [B] each (no pan in mono)."""

    def __init__(self, config: SynthData, *, sample_rate: int, channels: int, length: int) -> None:
        self.config = config
        self.sample_rate = sample_rate
        self.channels = channels
        self.length = length  # T

    @property
    def fingerprint(self) -> str:
        """A hash of the settings; the tones follow from them."""
        text = f"{FORMAT} {self.config.to_json()} {self.sample_rate} {self.channels} {self.length}"
        return hashlib.sha256(text.encode()).hexdigest()

    def train_batch(self, seed: int, step: int, items: range) -> Batch:
        """A new tone for every (seed, step, item)."""
        return stack(
            [self._item(mix(TONES, seed, step, item), f"{seed}/{step}/{item}") for item in items]
        )

    def valid_batches(self, batch_size: int) -> Iterator[Batch]:
        """The same `valid_crops` tones every time."""
        for first in range(0, self.config.valid_crops, batch_size):
            items = range(first, min(first + batch_size, self.config.valid_crops))
            yield stack([self._item(mix(TONES, item), f"valid/{item}") for item in items])

    def describe(self) -> str:
        """One line: the factors and the length."""
        return (
            f"endless tones of {self.length / self.sample_rate:.2f} s with known "
            f"{', '.join(Factors._fields)}; {self.config.valid_crops} fixed ones to validate on"
        )

    def _item(self, seed: int, name: str) -> Batch:
        factors = draw(Random(seed))
        x = tone(
            factors,
            sample_rate=self.sample_rate,
            length=self.length,
            channels=self.channels,
            harmonics=self.config.harmonics,
            noise_seed=seed,
        )
        known = factors._asdict()
        if self.channels == 1:
            del known["pan"]  # one channel does not hold it
        labels = {k: torch.tensor([v], dtype=torch.float32) for k, v in known.items()}
        return Batch(torch.from_numpy(x)[None], None, labels, (f"synth/{name}@0",))


def draw(rng: Random) -> Factors:
    """Draw every factor evenly and independently between LOW and HIGH."""
    values = []
    for name, low, high in zip(Factors._fields, LOW, HIGH, strict=True):
        if name in LOGARITHMIC:
            values.append(math.exp(rng.uniform(math.log(low), math.log(high))))
        else:
            values.append(rng.uniform(low, high))
    return Factors(*values)


def tone(
    factors: Factors,
    *,
    sample_rate: int,
    length: int,
    channels: int = 2,
    harmonics: int = 32,
    noise_seed: int = 0,
) -> np.ndarray:
    """One tone of `length` samples, float32 [C, T], by the formulas above.

    With one channel the tone is not panned: it is the mono signal before the pan.
    """
    t = np.arange(length) / sample_rate
    envelope = np.minimum(1.0, t / factors.attack)
    envelope *= np.exp(-np.maximum(0.0, t - factors.attack) / factors.decay)
    noise = np.random.Generator(np.random.PCG64(noise_seed)).standard_normal(length)
    noise *= RMS * 10 ** (factors.noise / 20)
    mono = envelope * (_harmonics(factors, t, sample_rate, harmonics) + noise)
    if channels == 1:
        return mono[None].astype(np.float32)
    angle = (1 + factors.pan) * math.pi / 4
    return np.stack([math.cos(angle) * mono, math.sin(angle) * mono]).astype(np.float32)


def _harmonics(factors: Factors, t: np.ndarray, sample_rate: int, most: int) -> np.ndarray:
    """The sum of the harmonics below Nyquist, of the root mean square RMS."""
    f0 = 440.0 * 2 ** ((factors.pitch - 69) / 12)
    delta = 2 ** (factors.vibrato / 12) - 1  # the share by which the frequency swings
    turn = 2 * math.pi * VIBRATO_HZ
    phase = 2 * math.pi * f0 * (t + delta * (1 - np.cos(turn * t)) / turn)
    count = min(most, math.ceil(sample_rate / 2 / (f0 * (1 + delta))) - 1)
    if count < 1:
        return np.zeros_like(t)
    amplitudes = np.arange(1, count + 1) ** (factors.tilt / (20 * math.log10(2)))
    amplitudes *= RMS / math.sqrt((amplitudes**2).sum() / 2)
    return _sine_series(amplitudes, phase)


def _sine_series(amplitudes: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """sum_k amplitudes[k - 1] sin(k phase), by Clenshaw's recurrence: one sine and cosine in all."""
    twice_cosine = 2 * np.cos(phase)
    last, before = np.zeros_like(phase), np.zeros_like(phase)
    for amplitude in amplitudes[::-1]:
        np.subtract(twice_cosine * last, before, out=before)
        before += amplitude
        last, before = before, last
    return np.asarray(last * np.sin(phase))
