"""Segments: which ones a sound has, how they come together again, and the codes of their RMS."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from audiovae.models.segments import (
    LEAST_SCALE,
    SCALE_SIZES,
    Segmentation,
    codes_of_scale,
    overlap_add,
    rms,
    runs,
    scale_of_codes,
)

PUBLISHED = Segmentation(48_000, 47_520, 320)  # a stride of 148.5 frames


@pytest.mark.parametrize(
    ("length", "frames"),
    [
        (1, [1]),
        (47_520, [149]),
        (47_521, [149, 1]),
        (47_680, [149, 1]),
        (47_681, [150, 1]),
        (48_000, [150, 2]),
        (95_041, [150, 149, 1]),
    ],
)
def test_frames_of_the_published_segments(length: int, frames: list[int]) -> None:
    """ceil(min(48000, T - 47520 i) / 320) while 47520 i < T, worked out by hand."""
    assert [segment.frames for segment in PUBLISHED.segments_of(length)] == frames
    assert PUBLISHED.frames_of(length) == sum(frames)
    assert [segment.frames for segment in PUBLISHED.segments_in(sum(frames))] == frames


@st.composite
def segmentations(draw: st.DrawFn) -> Segmentation:
    hop = draw(st.integers(1, 7))
    stride = draw(st.integers(hop, 40))
    return Segmentation(draw(st.integers(stride, 2 * stride)), stride, hop)


@given(segmentations(), st.integers(1, 200))
def test_the_number_of_frames_tells_the_segments(cut: Segmentation, length: int) -> None:
    told = cut.segments_in(cut.frames_of(length))
    assert [s.frames for s in told] == [s.frames for s in cut.segments_of(length)]


@given(segmentations(), st.integers(1, 60))
def test_any_number_of_frames_has_segments(cut: Segmentation, frames: int) -> None:
    segments = cut.segments_in(frames)
    assert sum(segment.frames for segment in segments) == frames
    assert [segment.start for segment in segments] == [i * cut.stride for i in range(len(segments))]


def test_runs_are_neighbours_of_equal_length() -> None:
    found = [
        (first, [s.start for s in alike]) for first, alike in runs(PUBLISHED.segments_of(150_000))
    ]
    assert found == [(0, [0, 47_520, 95_040]), (450, [142_560])]


def test_segments_of_one_sound_give_it_back() -> None:
    """Whatever the fading, two equal values blend to themselves."""
    x = torch.randn(2, 1, 23, dtype=torch.float64)
    parts = [x[..., start : start + 10] for start in (0, 6, 12, 18)]
    torch.testing.assert_close(overlap_add(parts, 6), x)


def test_one_segment_passes_linearly_into_the_next() -> None:
    """Where ones meet twos, k samples of overlap are the steps of 1 / (k + 1) between them."""
    ones, twos = torch.ones(1, 1, 9, dtype=torch.float64), torch.full((1, 1, 9), 2.0).double()
    added = overlap_add([ones, twos], 6)[0, 0]
    expected = [1.0] * 6 + [1.25, 1.5, 1.75] + [2.0] * 6
    torch.testing.assert_close(added, torch.tensor(expected, dtype=torch.float64))


def test_rms_is_of_the_mean_of_the_channels() -> None:
    x = torch.zeros(1, 3, 2, 8)
    x[0, 1] = 0.5
    x[0, 2, 0], x[0, 2, 1] = 1.0, -1.0  # what is opposite in the channels has no mean
    torch.testing.assert_close(rms(x), torch.tensor([[LEAST_SCALE, 0.5, LEAST_SCALE]]))


def test_codes_of_a_scale_are_exact_and_their_first_half_nearly() -> None:
    scale = torch.tensor([[LEAST_SCALE, 1e-5, 0.1, 1 / 3, 1.0, 1000.0, 3e38]])
    codes = codes_of_scale(scale)
    sizes = torch.tensor(SCALE_SIZES)[:, None]
    assert (codes >= 0).all() and (codes < sizes).all()
    assert torch.equal(scale_of_codes(codes), scale)
    coarse = scale_of_codes(codes[:, :1])
    assert ((coarse / scale - 1).abs() <= 2**-7).all()


def test_every_code_of_a_scale_is_a_positive_number() -> None:
    corners = torch.tensor([[0, SCALE_SIZES[0] - 1], [0, SCALE_SIZES[1] - 1]])[None]
    scale = scale_of_codes(corners)
    assert (scale >= LEAST_SCALE).all() and scale.isfinite().all()
