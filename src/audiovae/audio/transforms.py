"""Exact filter banks on a frame grid: one frame a hop, no frame lost at either end.

A sound of F * H samples gives F frames of a window of N samples. Frame f is centred on its own hop, [f H, (f + 1) H), or
with `causal` ends with it; samples beyond the ends count as zero. Overlap-add divides by the sum of the squared windows
that really lie over each sample, so that the inverse is exact up to both ends whatever the length is
(Griffin & Lim 1984, eq. 6).

The MDCT has one real number a sample and no redundancy (Princen & Bradley 1986): with a window w of 2H samples,
    X[k] = sqrt(2/H) sum_n w[n] x[n] cos(pi/H (n + 1/2 + H/2) (k + 1/2)).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from audiovae.errors import ConfigError

Phase = Literal["frame", "sound"]


def window_margins(win_length: int, hop_length: int, causal: bool) -> tuple[int, int]:
    """Samples of a frame's window before and after its own hop."""
    spare = win_length - hop_length
    return (spare, 0) if causal else (spare - spare // 2, spare // 2)


def frame(x: Tensor, win_length: int, hop_length: int, causal: bool = False) -> Tensor:
    """Cut x [..., F * H] into overlapping frames [..., F, N], zero beyond the ends."""
    margins = window_margins(win_length, hop_length, causal)
    return nn.functional.pad(x, margins).unfold(-1, win_length, hop_length)


def overlap_add(frames: Tensor, hop_length: int, causal: bool = False) -> Tensor:
    """Add frames [..., F, N] up on their grid, the transpose of `frame` -> [..., F * H].

    N must be a multiple of the hop: each frame is then N / H rows of a hop, added row by row.
    """
    rows: Tensor = frames.unflatten(-1, (-1, hop_length))  # [..., F, R, H]
    n_frames, n_rows = rows.shape[-3], rows.shape[-2]
    total = rows.new_zeros(*rows.shape[:-3], n_frames + n_rows - 1, hop_length)
    for row in range(n_rows):
        total[..., row : row + n_frames, :] += rows[..., row, :]
    left, _ = window_margins(n_rows * hop_length, hop_length, causal)
    return total.flatten(-2)[..., left : left + n_frames * hop_length]


class STFT(nn.Module):
    """Short-time Fourier transform on the frame grid, and its exact inverse; Hann window.

    With phase "frame" each frame's phases count from its own first sample, as usual. With phase "sound" they count from
    the first frame's: X[f, k] is turned by e^(-2 pi i k f H / N), and a steady partial in the middle of a bin has
    the same phase in every frame, which a network then need not learn to turn. That factor repeats every N / H frames, so
    F must be a multiple of N / H, and a piece of a sound must begin at one.
    """

    window: Tensor

    def __init__(
        self, win_length: int, hop_length: int, causal: bool = False, phase: Phase = "frame"
    ) -> None:
        super().__init__()
        if win_length % hop_length or win_length < 2 * hop_length:
            raise ConfigError(
                f"win_length must be a multiple of hop_length ({hop_length}), at least twice it, got {win_length}"
            )
        self.win_length, self.hop_length, self.causal = win_length, hop_length, causal
        self.n_bins = win_length // 2 + 1
        self.period = win_length // hop_length if phase == "sound" else 1  # frames
        self.register_buffer("window", torch.hann_window(win_length), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., F * H] -> complex [..., F, N]; scaled so that white noise keeps its level."""
        frames = frame(x, self.win_length, self.hop_length, self.causal) * self.window
        spectrum: Tensor = torch.fft.rfft(self._turned(frames, 1), norm="ortho")
        return spectrum

    def inverse(self, spectrum: Tensor) -> Tensor:
        """Complex [..., F, N] -> x [..., F * H], exact for the transform of a sound.

        In the causal form the last samples lie under the vanishing end of one window: there the division is floored,
        and the sound fades out over the last 16 % of a window instead of growing without bound.
        """
        frames = torch.fft.irfft(spectrum, n=self.win_length, norm="ortho")
        x = overlap_add(self._turned(frames, -1) * self.window, self.hop_length, self.causal)
        cover = self.window.square().expand(spectrum.shape[-2], -1)
        return x / overlap_add(cover, self.hop_length, self.causal).clamp_min(0.05)

    def _turned(self, frames: Tensor, way: int) -> Tensor:
        """Turn each frame round by as many hops as frames lie before it: the shift theorem, without a sine."""
        if self.period == 1:
            return frames
        groups = frames.unflatten(-2, (-1, self.period)).unbind(-2)  # each [..., F / R, N]
        turned = [group.roll(way * i * self.hop_length, -1) for i, group in enumerate(groups)]
        return torch.stack(turned, -2).flatten(-3, -2)


class MDCT(nn.Module):
    """Modified discrete cosine transform on the frame grid, and its inverse; sine window of two hops.

    With F frames over F hops, the very first and last half hop (in the causal form: the last hop) lie under one frame
    only: there time-domain aliasing is not cancelled, everywhere else the inverse is exact.
    """

    window: Tensor
    basis: Tensor

    def __init__(self, hop_length: int, causal: bool = False) -> None:
        super().__init__()
        self.hop_length, self.causal, self.n_bins = hop_length, causal, hop_length
        n = torch.arange(2 * hop_length, dtype=torch.float64)
        k = torch.arange(hop_length, dtype=torch.float64)
        angle = math.pi / hop_length * (n[:, None] + 0.5 + hop_length / 2) * (k + 0.5)
        window = torch.sin(math.pi * (n + 0.5) / (2 * hop_length))
        basis = math.sqrt(2 / hop_length) * window[:, None] * angle.cos()  # [2H, H]
        self.register_buffer("basis", basis.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., F * H] -> real [..., F, H]."""
        frames = frame(x, 2 * self.hop_length, self.hop_length, self.causal)
        with torch.autocast(x.device.type, enabled=False):  # the quiet bins are below bf16's bits
            return frames @ self.basis

    def inverse(self, spectrum: Tensor) -> Tensor:
        """Real [..., F, H] -> x [..., F * H]."""
        with torch.autocast(spectrum.device.type, enabled=False):
            frames = spectrum @ self.basis.mT
        return overlap_add(frames, self.hop_length, self.causal)
