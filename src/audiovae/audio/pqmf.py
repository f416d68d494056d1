"""Pseudo quadrature mirror filters: a sound as M bands at an M-th of its rate, and back (Nguyen 1994; RAVE's form).

    h_k[n] = 2 h[n] cos((2 k + 1) pi / (2 M) n + (-1)^k pi / 4),    y_k[f] = sum_n h_k[n] x[f M - 1 + n],    n = -L .. L

h is a low-pass of cutoff about pi / (2 M), a sinc under a Kaiser window. The way back is the transpose times M. With
g = h * h the two together are the filter  2 M (g[0] + 2 sum_l (-1)^l g[2 M l] cos(2 M l w)),  so the cutoff is searched
that makes the largest g[2 M l], l >= 1, small (Creusere & Mitra 1995); aliases lie below the stop band's attenuation.
Every second value of the odd bands changes its sign: what rises in frequency then rises within its band too.

The original finds the cutoff with scipy's `fmin` from 1 / M; the same simplex is walked here, so the filters are equal.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from audiovae.errors import ConfigError

Samples = npt.NDArray[np.float64]


class PQMF(nn.Module):
    """Bands at an M-th of the rate, near-perfectly invertible away from the ends, beyond which the sound counts as zero."""

    filters: Tensor  # [M, M, frames]: band, sample of a frame, frame
    sign: Tensor  # [M, 2]: of even and odd frames

    def __init__(self, n_bands: int, attenuation: float = 100.0) -> None:
        """`attenuation` of the stop band in dB.  Raises ConfigError below 2 bands or 50 dB."""
        super().__init__()
        if n_bands < 2 or attenuation <= 50:
            raise ConfigError(
                "a PQMF has at least 2 bands and more than 50 dB of attenuation (80 to 120 suit), "
                f"got {n_bands} and {attenuation}"
            )
        bank = modulated(prototype(n_bands, attenuation), n_bands)
        self.n_bands, self.reach = n_bands, bank.shape[1] // 2  # samples on each side
        self.frames = self.reach // n_bands + 1  # on each side
        missing = self.frames * n_bands - 1 - self.reach
        padded = np.pad(bank, ((0, 0), (missing, missing + 1)))
        polyphase = torch.from_numpy(padded).unflatten(1, (-1, n_bands)).mT
        sign = torch.ones(n_bands, 2)
        sign[1::2, 0] = -1
        self.register_buffer("filters", polyphase.float().contiguous(), persistent=False)
        self.register_buffer("sign", sign, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, F * M] -> [B, C * M, F], the bands of a channel side by side."""
        with torch.autocast(x.device.type, enabled=False):  # -100 dB are below bf16's bits
            rows = x.to(self.filters.dtype).flatten(0, 1).unflatten(1, (-1, self.n_bands)).mT
            y = nn.functional.conv1d(rows, self.filters, padding=self.frames)[..., :-1]
            bands: Tensor = self._flipped(y).unflatten(0, x.shape[:2]).flatten(1, 2)
        return bands

    def inverse(self, bands: Tensor) -> Tensor:
        """[B, C * M, F] -> x [B, C, F * M]."""
        count = bands.shape[-1]
        with torch.autocast(bands.device.type, enabled=False):
            y = bands.to(self.filters.dtype).unflatten(1, (-1, self.n_bands))
            rows = self._flipped(y.flatten(0, 1)) * self.n_bands
            rows = nn.functional.conv_transpose1d(rows, self.filters)
            rows = rows[..., self.frames : self.frames + count]
            x: Tensor = rows.mT.flatten(1).unflatten(0, y.shape[:2])
        return x

    def samples_of(self, first: int, last: int) -> tuple[int, int]:
        """The first and the last sample under the frames first..last."""
        return first * self.n_bands - 1 - self.reach, last * self.n_bands - 1 + self.reach

    def frames_of(self, first: int, last: int) -> tuple[int, int]:
        """The first and the last frame over the samples first..last."""
        return -((self.reach - 1 - first) // self.n_bands), (last + 1 + self.reach) // self.n_bands

    def _flipped(self, y: Tensor) -> Tensor:
        """Turn the odd bands' spectra round.  [R, M, F] -> [R, M, F]."""
        return y * self.sign[:, torch.arange(y.shape[-1], device=y.device) % 2]


@cache
def prototype(n_bands: int, attenuation: float) -> Samples:
    """The low-pass h, an odd number of taps around its middle."""

    def worst(cutoff: float) -> float:
        h = low_pass(cutoff, attenuation)
        overlap = np.convolve(h, h)[len(h) - 1 :: 2 * n_bands]
        return float(np.abs(overlap[1:]).max())

    return low_pass(_descend(worst, 1 / n_bands), attenuation)


def low_pass(cutoff: float, attenuation: float) -> Samples:
    """A sinc under a Kaiser window; its transition is as wide as the cutoff (radians a sample) is high."""
    taps = math.ceil((attenuation - 7.95) / (2.285 * cutoff) + 1)  # Kaiser 1974
    half = taps // 2
    n = np.arange(-half, half + 1)
    beta = 0.1102 * (attenuation - 8.7)
    h: Samples = cutoff / np.pi * np.sinc(cutoff / np.pi * n) * np.kaiser(2 * half + 1, beta)
    return h


def modulated(h: Samples, n_bands: int) -> Samples:
    """The filters h_k of all bands.  [taps] -> [M, taps]."""
    n = np.arange(len(h)) - len(h) // 2
    k = np.arange(n_bands)[:, None]
    phase = np.pi / 4 * (-1.0) ** k
    bank: Samples = 2 * h * np.cos((2 * k + 1) * np.pi / (2 * n_bands) * n + phase)
    return bank


def _descend(cost: Callable[[float], float], start: float) -> float:
    """The simplex of Nelder & Mead 1965 in one dimension, with scipy's coefficients and tolerance."""
    best, other = (cost(start), start), (cost(1.05 * start), 1.05 * start)
    while True:
        best, other = sorted((best, other), key=lambda point: point[0])
        if abs(best[1] - other[1]) <= 1e-4:
            return best[1]

        def at(share: float, a: float = best[1], b: float = other[1]) -> tuple[float, float]:
            x = (1 + share) * a - share * b  # share 1 is b's mirror image in a
            return cost(x), x

        mirror = at(1.0)
        if mirror[0] < best[0]:
            further = at(2.0)
            other = further if further[0] < mirror[0] else mirror
        elif mirror[0] < other[0]:
            nearer = at(0.5)
            other = nearer if nearer[0] <= mirror[0] else at(-0.5)
        else:
            other = at(-0.5)
