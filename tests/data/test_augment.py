"""Augmentation changes what it says and nothing else."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
import torch
from scipy.signal import lfilter

from audiovae.audio.levels import loudness
from audiovae.data.augment import POLE, Augment, all_pass, augment, bounded_gain, turn_frequency

OFF = Augment(gain=0, polarity=0, phase=0, swap=0)


def noise(channels: int, frames: int) -> torch.Tensor:
    """Uniform noise in [-0.5, 0.5), [C, T]."""
    return torch.rand(channels, frames, generator=torch.Generator().manual_seed(0)) - 0.5


def only(**settings: float) -> Augment:
    """The settings with everything off but these."""
    return OFF.model_copy(update=settings)


@pytest.mark.parametrize("frequency", [20.0, 1_000.0, 8_000.0])
def test_all_pass_equals_the_difference_equation(frequency: float) -> None:
    x, rate = noise(2, 5_000), 44_100
    middle = -2 * POLE * np.cos(2 * np.pi * frequency / rate)
    expected = lfilter([POLE**2, middle, 1], [1, middle, POLE**2], x.double().numpy())
    assert np.abs(all_pass(x, frequency, rate).numpy() - expected).max() < 1e-6


def test_all_pass_keeps_every_magnitude_and_turns_phase() -> None:
    click = torch.zeros(1, 1_024)
    click[0, 0] = 1
    spectrum = torch.fft.rfft(all_pass(click, 2_000, 44_100).double())
    assert (spectrum.abs() - 1).abs().max() < 1e-5
    assert spectrum.angle().abs().max() > 3  # it passes half a turn


def test_nothing_on_leaves_the_crop_as_it_is() -> None:
    x = noise(2, 100)
    assert torch.equal(augment(x, 44_100, OFF, Random(0)), x)


def test_each_change_does_what_its_name_says() -> None:
    x = noise(2, 100)
    assert torch.equal(augment(x, 44_100, only(polarity=1), Random(0)), -x)
    assert torch.equal(augment(x, 44_100, only(swap=1), Random(0)), x.flip(0))
    assert torch.equal(augment(x[:1], 44_100, only(swap=1), Random(0)), x[:1])
    ratios = [augment(x, 44_100, only(gain=1), Random(i)) / x for i in range(100)]
    levels = torch.tensor([20 * float(ratio.mean().log10()) for ratio in ratios])
    assert levels.min() >= -6 - 1e-4
    assert levels.max() <= 6 + 1e-4
    assert levels.max() - levels.min() > 10
    assert all(ratio.std() < 1e-5 for ratio in ratios)


def test_gain_never_lifts_a_crop_past_full_scale() -> None:
    loud, over = noise(1, 1_000) * 1.8, noise(1, 1_000) * 4
    assert float((loud * bounded_gain(loud, 20)).abs().max()) == pytest.approx(1)
    assert bounded_gain(over, 6) == 1  # what is past it already stays
    assert bounded_gain(over, -6) == pytest.approx(0.5012, abs=1e-4)
    assert bounded_gain(torch.zeros(1, 5), 6) == pytest.approx(1.995, abs=1e-3)


def test_switching_one_change_off_leaves_the_others_alone() -> None:
    x = noise(2, 100)
    for seed in range(20):
        level = augment(x, 44_100, only(gain=0.5), Random(seed))
        both = augment(x, 44_100, only(gain=0.5, polarity=1), Random(seed))
        assert torch.equal(both, -level)


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_the_phase_turns_below_nyquist_at_every_rate(rate: int) -> None:
    places = [turn_frequency(u, rate) for u in (0.0, 0.5, 0.999)]
    assert places == sorted(places)
    assert places[0] == 20
    assert places[-1] < 0.45 * rate


def test_every_crop_is_brought_to_one_loudness_but_never_past_full_scale() -> None:
    torch.manual_seed(0)
    settings = Augment(gain=0.0, loudness_lufs=-16.0)
    soft = 0.01 * torch.randn(2, 44_100)
    assert loudness(augment(soft, 44_100, settings, Random(0)), 44_100) == pytest.approx(
        -16, abs=0.01
    )
    clicks = torch.zeros(2, 44_100)
    clicks[:, ::4_000] = 0.1  # soft on the whole, with peaks that the level would clip
    assert float(augment(clicks, 44_100, settings, Random(0)).abs().max()) == pytest.approx(1.0)
    silence = torch.zeros(2, 100)
    assert torch.equal(augment(silence, 44_100, settings, Random(0)), silence)
