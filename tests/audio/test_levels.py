"""Levels of sounds whose levels are known."""

from __future__ import annotations

import math

import pytest
import torch

from audiovae.audio.levels import amplitude, decibels, loudness, peak, rms


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


@pytest.mark.parametrize("sample_rate", [16_000, 44_100, 48_000, 96_000])
def test_loudness_of_the_standards_tone(sample_rate: int) -> None:
    """EBU Tech 3341, case 1: a stereo tone of 1 kHz at -23 dBFS has -23 LUFS, one channel of it 3 less."""
    t = torch.arange(5 * sample_rate) / sample_rate
    tone = amplitude(-23) * torch.sin(2 * math.pi * 1_000 * t)
    assert loudness(torch.stack([tone, tone]), sample_rate) == pytest.approx(-23.0, abs=0.1)
    assert loudness(tone[None], sample_rate) == pytest.approx(-26.0, abs=0.1)


def test_loudness_gates_what_is_far_softer() -> None:
    """EBU Tech 3341, case 3: -36 dBFS for 10 s, -23 for 60, -36 for 10, is -23 LUFS."""
    sample_rate = 8_000
    t = torch.arange(80 * sample_rate) / sample_rate
    level = torch.where((t >= 10) & (t < 70), amplitude(-23), amplitude(-36))
    tone = level * torch.sin(2 * math.pi * 1_000 * t)
    assert loudness(torch.stack([tone, tone]), sample_rate) == pytest.approx(-23.0, abs=0.1)


def test_loudness_of_nothing_and_of_a_short_sound() -> None:
    assert loudness(torch.zeros(2, 10_000), 44_100) == -math.inf
    assert math.isfinite(loudness(0.1 * torch.randn(1, 100), 44_100))
