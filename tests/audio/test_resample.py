"""Physics of resampling: tones keep their pitch, what is above Nyquist goes, blocks equal the whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from audiovae.audio.resample import Resampler, filter_reach, resample, resampled_length

RATES = [(44_100, 48_000), (44_100, 24_000), (192_000, 8_000), (8_000, 192_000), (44_101, 44_100)]


def tone(frequency: float, rate: int, seconds: float = 0.5) -> Tensor:
    """A sine of amplitude one half, [1, T]."""
    t = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    return (0.5 * torch.sin(2 * torch.pi * frequency * t)).float()[None]


@pytest.mark.parametrize(("from_rate", "to_rate"), RATES)
def test_a_tone_is_the_same_tone_at_the_other_rate(from_rate: int, to_rate: int) -> None:
    y, expected = resample(tone(1_000, from_rate), from_rate, to_rate), tone(1_000, to_rate)
    assert y.shape == expected.shape
    edge = to_rate // 20
    assert (y - expected)[:, edge:-edge].abs().max() < 2e-4


def test_a_tone_above_nyquist_becomes_silence() -> None:
    y = resample(tone(15_000, 44_100), 44_100, 24_000)
    assert y[:, 2_000:-2_000].abs().max() < 1e-5


@pytest.mark.parametrize(("from_rate", "to_rate"), [*RATES, (44_100, 44_100)])
def test_blocks_equal_the_whole(from_rate: int, to_rate: int) -> None:
    x = torch.rand(2, 20_011, generator=torch.Generator().manual_seed(1)) - 0.5
    stream = Resampler(from_rate, to_rate, 2)
    sizes = [1, 2, 997, 8_000, 11_011]
    y = torch.cat([*(stream.push(block) for block in x.split(sizes, 1)), stream.finish()], dim=1)
    whole = resample(x, from_rate, to_rate)
    assert y.shape == whole.shape
    assert (y - whole).abs().max() < 1e-6


@pytest.mark.parametrize(("from_rate", "to_rate"), RATES)
@pytest.mark.parametrize("frames", [1, 2, 3, 47, 1_000])
def test_every_length_is_the_rounded_one(from_rate: int, to_rate: int, frames: int) -> None:
    y = resample(torch.ones(2, frames), from_rate, to_rate)
    assert y.shape[1] == resampled_length(frames, from_rate, to_rate)
    assert abs(y.shape[1] - frames * to_rate / from_rate) <= max(
        0.5, 1 - frames * to_rate / from_rate
    )
    stream = Resampler(from_rate, to_rate, 2)
    in_blocks = torch.cat([stream.push(torch.ones(2, frames)), stream.finish()], dim=1)
    assert in_blocks.shape == y.shape


@pytest.mark.parametrize(("from_rate", "to_rate"), RATES)
def test_nothing_reaches_farther_than_the_filter(from_rate: int, to_rate: int) -> None:
    reach = filter_reach(from_rate, to_rate)
    click = torch.zeros(1, 2 * reach + 1)
    click[0, reach] = 1.0
    y = resample(torch.nn.functional.pad(click, (reach, reach)), from_rate, to_rate)
    outside = y.clone()
    start, stop = reach * to_rate // from_rate, 3 * reach * to_rate // from_rate
    outside[:, start : stop + 2] = 0
    assert outside.abs().max() < 1e-6 * y.abs().max()
