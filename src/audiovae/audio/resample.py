"""Other sample rates through soxr (HQ: pass band to 0.91 of the lower Nyquist, images below -140 dB).

A sound of T samples becomes round(T * to_rate / from_rate) samples, at least 1, whole or in blocks.
"""

from __future__ import annotations

import numpy as np
import soxr
import torch
from torch import Tensor

QUALITY = "HQ"
FILTER_REACH = 256  # samples at the lower rate, to each side, that can change a sample by over 1e-6


def resampled_length(frames: int, from_rate: int, to_rate: int) -> int:
    """Samples that `frames` samples become at another rate.

    >>> resampled_length(44_100, 44_100, 24_000)
    24000
    """
    return max(1, (2 * frames * to_rate + from_rate) // (2 * from_rate))


def filter_reach(from_rate: int, to_rate: int) -> int:
    """Samples at from_rate around a moment that its resampled value depends on, to each side."""
    return FILTER_REACH * -(-from_rate // min(from_rate, to_rate))


def resample(samples: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Bring samples [C, T] from one rate in Hz to another: [C, round(T * to_rate / from_rate)]."""
    if from_rate == to_rate:
        return samples
    y = soxr.resample(samples.numpy().T, from_rate, to_rate, quality=QUALITY)
    return _fit(y, resampled_length(samples.shape[-1], from_rate, to_rate))


class Resampler:
    """Resample a sound that comes in blocks; together they equal `resample` of the whole."""

    def __init__(self, from_rate: int, to_rate: int, channels: int) -> None:
        self.from_rate, self.to_rate, self.channels = from_rate, to_rate, channels
        self.taken = 0  # samples that came in
        self.given = 0  # samples that went out
        same = from_rate == to_rate
        self._stream = (
            None
            if same
            else soxr.ResampleStream(from_rate, to_rate, channels, "float32", quality=QUALITY)
        )

    def push(self, block: Tensor) -> Tensor:
        """Give a block [C, T] in, get what is ready of the result, [C, any number]."""
        self.taken += block.shape[-1]
        if self._stream is None:
            return block
        y = self._stream.resample_chunk(np.ascontiguousarray(block.numpy().T))
        self.given += len(y)
        return torch.from_numpy(np.ascontiguousarray(y.T))

    def finish(self) -> Tensor:
        """The rest of the result, [C, T]; the resampler is used up."""
        if self._stream is None:
            return torch.zeros(self.channels, 0)
        empty = np.zeros((0, self.channels), dtype=np.float32)
        y = self._stream.resample_chunk(empty, last=True)
        return _fit(y, resampled_length(self.taken, self.from_rate, self.to_rate) - self.given)


def _fit(y: np.ndarray, length: int) -> Tensor:
    """[T, C] -> [C, length]: soxr rounds some lengths by one sample the other way."""
    missing = max(0, length - len(y))
    fitted = np.pad(y, ((0, missing), (0, 0)))[: max(0, length)]
    return torch.from_numpy(np.ascontiguousarray(fitted.T))
