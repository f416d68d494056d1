"""A-weighting: the standard's curve, and the filter that auraloss fits to it."""

from __future__ import annotations

import math

import pytest
import torch

from audiovae.audio.a_weighting import TAPS, a_weighted, a_weighting_filter


@pytest.mark.parametrize("sample_rate", [24_000, 44_100, 48_000])
def test_the_taps_are_those_of_auraloss(sample_rate: int) -> None:
    """Which fits them with scipy's bilinear, freqz and firls."""
    from auraloss.perceptual import FIRFilter

    theirs = FIRFilter(filter_type="aw", fs=sample_rate).fir.weight.flatten()
    torch.testing.assert_close(a_weighting_filter(sample_rate), theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("hz", "db"), [(1_000, 0.0), (2_000, 1.2), (4_000, 1.0), (500, -3.2)])
def test_tones_lose_what_iec_61672_says(hz: float, db: float) -> None:
    sample_rate = 44_100
    x = torch.sin(2 * math.pi * hz * torch.arange(8_192) / sample_rate)[None]
    middle = slice(TAPS, -TAPS)
    gain = a_weighted(x, sample_rate)[:, middle].norm() / x[:, middle].norm()
    assert 20 * math.log10(float(gain)) == pytest.approx(db, abs=0.5)


def test_it_is_in_step_with_the_sound() -> None:
    x = torch.zeros(2, 3, 401)
    x[..., 200] = 1.0
    y = a_weighted(x, 44_100)
    assert y.shape == x.shape
    torch.testing.assert_close(y, y.flip(-1))
