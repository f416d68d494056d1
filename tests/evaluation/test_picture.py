"""A spectrogram shows each tone at its height and its level; the picture is the PNG of just that."""

from __future__ import annotations

import importlib.util
import io
import math

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.image import imread
from torch import Tensor

from audiovae.errors import MissingPackageError
from audiovae.evaluation import picture
from audiovae.evaluation.picture import (
    RANGE_DB,
    ROWS,
    loudest_db,
    mel_levels,
    png,
    spectrogram_png,
    tick_heights,
)

RATE = 44_100


def sine(hz: float, seconds: float = 1.0, rate: int = RATE) -> Tensor:
    t = torch.arange(round(seconds * rate)) / rate
    return torch.sin(2 * math.pi * hz * t)[None]


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_a_tone_is_brightest_where_the_tick_of_its_frequency_stands(rate: int) -> None:
    heights = tick_heights(rate)
    for label, hz in (("200", 200.0), ("1k", 1_000.0), ("4k", 4_000.0)):
        levels = mel_levels(sine(hz, rate=rate), rate).mean(1)
        assert int(levels.argmax()) / ROWS == pytest.approx(heights[label], abs=1.5 / ROWS)


def test_half_the_amplitude_is_six_decibels_less() -> None:
    whole, half = (mel_levels(x, RATE) for x in (sine(1_000), sine(1_000) / 2))
    loud = whole > -100
    assert torch.allclose((whole - half)[loud], torch.tensor(6.0206), atol=1e-3)


def test_one_channel_of_two_has_half_the_power() -> None:
    both = mel_levels(sine(500).expand(2, -1), RATE).max()
    left = mel_levels(torch.cat([sine(500), torch.zeros(1, RATE)]), RATE).max()
    assert float(both - left) == pytest.approx(3.0103, abs=1e-3)


def test_a_sound_of_any_length_has_a_picture() -> None:
    for length in (1, 2, 700, 5 * RATE):
        levels = mel_levels(torch.ones(2, length), RATE)
        assert len(levels) == ROWS
        assert levels.isfinite().all()
        assert 1 <= levels.shape[1] < 700


def test_an_onset_is_where_it_is() -> None:
    x = torch.cat([torch.zeros(1, RATE // 2), sine(2_000, 0.5)], dim=1)
    levels = mel_levels(x, RATE).amax(0)
    rises = int((levels > levels.max() - 6).nonzero()[0])
    assert rises / len(levels) == pytest.approx(0.5, abs=0.05)


def test_silence_is_dark() -> None:
    levels = mel_levels(torch.zeros(1, RATE), RATE)
    assert float(levels.max()) + RANGE_DB <= loudest_db(levels)


def test_the_png_holds_the_colours_of_the_shades_first_row_at_the_bottom() -> None:
    shades = torch.tensor([[0.0, 0.25], [0.5, 1.0]])
    pixels = imread(io.BytesIO(png(shades)), format="png")
    wanted = matplotlib.colormaps["magma"](shades.flip(0).numpy())
    assert np.abs(pixels - wanted).max() < 1 / 255


def test_one_reference_makes_the_quieter_sound_darker() -> None:
    x = sine(1_000)
    reference = loudest_db(mel_levels(x, RATE))
    own = spectrogram_png(x, RATE)
    assert spectrogram_png(x, RATE, reference_db=reference) == own
    assert spectrogram_png(x / 8, RATE) == own  # by itself it is as bright
    quiet = imread(io.BytesIO(spectrogram_png(x / 8, RATE, reference_db=reference)), format="png")
    assert quiet[..., :3].mean() < imread(io.BytesIO(own), format="png")[..., :3].mean()


def test_missing_matplotlib_is_said_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"pip install 'audiovae\[plot\]'"):
        picture.expect_matplotlib()
