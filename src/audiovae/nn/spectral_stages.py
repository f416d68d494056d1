"""2-D convolutions over a spectrogram: units of conv -> BatchNorm -> ReLU, some of which shrink or grow it.

BatchNorm takes its statistics over the batch in training and stored ones afterwards (Ioffe & Szegedy 2015): in eval mode
an item equals itself in any batch, and a chunk equals the whole.  A stride is (frequency, time).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

Stride = tuple[int, int]


class SpectralEncoder(nn.Module):
    """[B, C, N, F] -> [B, widths[-1], n, F / time strides]; N is filled up to a multiple of the strides."""

    def __init__(
        self, channels: int, widths: Sequence[int], strides: Sequence[Stride], depth: int
    ) -> None:
        super().__init__()
        self.stride = math.prod(frequency for frequency, _ in strides)
        self.first = unit(nn.Conv2d(channels, widths[0], 3, padding=1))
        stages = zip(widths[:-1], widths[1:], strides, strict=True)
        self.stages = nn.Sequential(*(DownStage(*stage, depth) for stage in stages))

    def forward(self, x: Tensor) -> Tensor:
        """Shrink the picture while its channels grow."""
        filled = nn.functional.pad(x, (0, 0, 0, -x.shape[2] % self.stride))
        h: Tensor = self.stages(self.first(filled))
        return h


class SpectralDecoder(nn.Module):
    """The mirror, from the widths and strides of its encoder.  [B, widths[-1], n, F / time strides] -> [B, C, N, F]."""

    def __init__(
        self, channels: int, widths: Sequence[int], strides: Sequence[Stride], depth: int
    ) -> None:
        super().__init__()
        stages = zip(widths[::-1][:-1], widths[::-1][1:], strides[::-1], strict=True)
        self.stages = nn.Sequential(*(UpStage(*stage, depth) for stage in stages))
        self.last = nn.Conv2d(widths[0], channels, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        """Grow the picture while its channels shrink."""
        x: Tensor = self.last(self.stages(h))
        return x


class DownStage(nn.Module):
    """Refine, then shrink.  h [B, in_width, N * f, F * t] -> [B, out_width, N, F] for the stride (f, t)."""

    def __init__(self, in_width: int, out_width: int, stride: Stride, depth: int) -> None:
        super().__init__()
        self.units = nn.Sequential(*(ResidualUnit(in_width) for _ in range(depth)))
        kernel, padding, _ = _spans(stride)
        self.resample = unit(nn.Conv2d(in_width, out_width, kernel, stride, padding))

    def forward(self, h: Tensor) -> Tensor:
        """Residual units at the input's size, a strided unit out of it."""
        out: Tensor = self.resample(self.units(h))
        return out


class UpStage(nn.Module):
    """Grow, then refine.  h [B, in_width, N, F] -> [B, out_width, N * f, F * t] for the stride (f, t)."""

    def __init__(self, in_width: int, out_width: int, stride: Stride, depth: int) -> None:
        super().__init__()
        kernel, padding, extra = _spans(stride)
        conv = nn.ConvTranspose2d(in_width, out_width, kernel, stride, padding, extra)
        self.resample = unit(conv)
        self.units = nn.Sequential(*(ResidualUnit(out_width) for _ in range(depth)))

    def forward(self, h: Tensor) -> Tensor:
        """A transposed strided unit into the new size, residual units at it."""
        out: Tensor = self.units(self.resample(h))
        return out


class ResidualUnit(nn.Module):
    """h + unit(h) with a kernel of 3 x 3.  h [B, W, N, F]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = unit(nn.Conv2d(width, width, 3, padding=1))

    def forward(self, h: Tensor) -> Tensor:
        """Add what the branch found."""
        out: Tensor = h + self.branch(h)
        return out


def unit(conv: nn.Conv2d | nn.ConvTranspose2d) -> nn.Sequential:
    """The convolution, then BatchNorm, then ReLU."""
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU())


def _spans(stride: Stride) -> tuple[Stride, Stride, Stride]:
    """Kernel, padding and the transposed form's extra output, so that s numbers become one and one becomes s.

    The kernel is twice the stride, as in nn/conv.py; 3 where nothing is strided.
    """
    kernel, padding, extra = zip(
        *((2 * s, math.ceil(s / 2), s % 2) if s > 1 else (3, 1, 0) for s in stride), strict=True
    )
    return kernel, padding, extra
