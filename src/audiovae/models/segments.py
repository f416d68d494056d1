"""Segments: a sound cut into stretches that overlap and are coded each by itself.

Segment i has the samples from i * stride on, `length` of them or what is left. Its frames follow those of segment i - 1,
so what overlaps is coded twice. Decoded segments are joined by an overlap-add that fades linearly (Défossez et al. 2022).
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

LEAST_SCALE = 1e-8  # added to every RMS: silence stays silence
# Codes of an RMS: the upper and the lower half of its float32. 0x7F80 is infinity's upper half.
SCALE_SIZES = (0x7F80, 0x10000)


class Segment(NamedTuple):
    """A stretch of a sound."""

    start: int  # sample
    length: int  # samples
    frames: int


class Segmentation(NamedTuple):
    """How sounds are cut."""

    length: int  # samples of a segment
    stride: int  # samples from the beginning of one to that of the next
    hop_length: int  # samples of a frame

    def segments_of(self, length: int) -> list[Segment]:
        """The segments of a sound of so many samples; the last ones may be shorter."""
        starts = range(0, length, self.stride)
        lengths = (min(self.length, length - start) for start in starts)
        return [
            Segment(start, part, -(-part // self.hop_length))
            for start, part in zip(starts, lengths, strict=True)
        ]

    def frames_of(self, length: int) -> int:
        """Frames of a sound of so many samples."""
        return sum(segment.frames for segment in self.segments_of(length))

    def segments_in(self, frames: int) -> list[Segment]:
        """The segments that so many frames are of: those of the shortest sound with as many.

        That is unambiguous: from sound to longer sound no segment gets shorter. Where no sound has just so many, the
        last segments lack what is too many.
        """
        lengths = range(frames * self.hop_length + 1)
        length = bisect.bisect_left(lengths, frames, key=self.frames_of)
        segments = []
        for segment in self.segments_of(length):
            kept = min(segment.frames, frames)
            frames -= kept
            if kept:
                segments.append(segment._replace(frames=kept))
        return segments


def runs(segments: Sequence[Segment]) -> Iterator[tuple[int, list[Segment]]]:
    """Neighbours of equal length, which can be one batch, each run after the number of frames before it."""
    first = 0
    for _, run in itertools.groupby(segments, key=lambda s: (s.length, s.frames)):
        alike = list(run)
        yield first, alike
        first += len(alike) * alike[0].frames


def overlap_add(xs: Sequence[Tensor], stride: int) -> Tensor:
    """Add segments [B, C, n] each, `stride` apart, each faded in and out by a triangle as long as the first.

    Divided by the sum of the triangles: where two segments overlap, one passes linearly into the other.
    """
    size = xs[0].shape[-1]
    ramp = torch.linspace(0, 1, size + 2, device=xs[0].device, dtype=xs[0].dtype)[1:-1]
    triangle = 0.5 - (ramp - 0.5).abs()
    total = max(number * stride + x.shape[-1] for number, x in enumerate(xs))
    added = xs[0].new_zeros(*xs[0].shape[:-1], total)
    weights = xs[0].new_zeros(total)
    for number, x in enumerate(xs):
        at = slice(number * stride, number * stride + x.shape[-1])
        weight = triangle[: x.shape[-1]]
        added[..., at] += weight * x
        weights[at] += weight
    return added / weights


def rms(x: Tensor) -> Tensor:
    """Of the mean of the channels.  x [B, n, C, T] -> [B, n], above 0."""
    return x.mean(2).square().mean(-1).sqrt() + LEAST_SCALE


def codes_of_scale(scale: Tensor) -> Tensor:
    """Positive numbers [B, n] -> the two halves of their float32, [B, 2, n] int64."""
    bits = scale.detach().float().contiguous().view(torch.int32).long()
    return torch.stack([bits >> 16, bits & 0xFFFF], dim=1)


def scale_of_codes(codes: Tensor) -> Tensor:
    """Undo `codes_of_scale`; the upper half alone gives 8 bits of it.  [B, 1 or 2, n] -> [B, n]."""
    bits = codes[:, 0] << 16
    if codes.shape[1] == 2:
        bits = bits | codes[:, 1]
    return bits.int().view(torch.float32).clamp(min=LEAST_SCALE)
