"""Levels of sounds whose levels are known."""

from __future__ import annotations

import math

import pytest
import torch

from audiovae.audio.levels import amplitude, decibels, peak, rms


def test_a_sine_has_its_peak_and_the_root_of_a_half_of_it() -> None:
    x = 0.8 * torch.sin(2 * torch.pi * torch.arange(1_000) / 100)[None]
    assert peak(x) == pytest.approx(0.8)
    assert rms(x) == pytest.approx(0.8 / math.sqrt(2), rel=1e-6)
    assert decibels(rms(x)) == pytest.approx(20 * math.log10(0.8) - 3.0103, abs=1e-4)


@pytest.mark.parametrize("level", [-90.0, -6.0, 0.0, 12.0])
def test_amplitude_inverts_decibels(level: float) -> None:
    assert decibels(amplitude(level)) == pytest.approx(level)


def test_silence_has_no_level() -> None:
    for x in (torch.zeros(2, 10), torch.zeros(2, 0)):
        assert (peak(x), rms(x), decibels(rms(x))) == (0.0, 0.0, -math.inf)
