"""Mel filters against librosa, and what the scales promise."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch

from audiovae.audio.mel import MelScale, hz_to_mel, mel_bands, mel_filters, mel_to_hz
from audiovae.errors import ConfigError


@pytest.mark.parametrize("sample_rate", [16_000, 44_100])
@pytest.mark.parametrize(("n_fft", "n_mels"), [(32, 5), (512, 80), (2048, 320)])
def test_filters_equal_librosa(sample_rate: int, n_fft: int, n_mels: int) -> None:
    theirs = librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=n_mels)
    np.testing.assert_allclose(mel_filters(sample_rate, n_fft, n_mels).numpy(), theirs, atol=1e-8)


def test_htk_filters_of_a_range_equal_librosa() -> None:
    ours = mel_filters(22_050, 1024, 64, low_hz=40, high_hz=8_000, scale="htk")
    theirs = librosa.filters.mel(sr=22_050, n_fft=1024, n_mels=64, fmin=40, fmax=8_000, htk=True)
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-8)


def test_without_the_norm_neighbours_share_each_bin() -> None:
    weights = mel_filters(16_000, 512, 20, slaney_norm=False)
    first, last = weights[0].argmax(), weights[-1].argmax()
    torch.testing.assert_close(weights.sum(0)[first + 1 : last], torch.ones(last - first - 1))


@pytest.mark.parametrize("scale", ["slaney", "htk"])
def test_mels_lead_back_to_hz(scale: MelScale) -> None:
    hz = torch.tensor([0.0, 20, 999, 1000, 1001, 22_050], dtype=torch.float64)
    torch.testing.assert_close(mel_to_hz(hz_to_mel(hz, scale), scale), hz)


def test_an_empty_range_of_frequencies_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"low_hz < high_hz .* got 9000 Hz to 8000\.0 Hz"):
        mel_filters(16_000, 512, 80, low_hz=9_000)
    with pytest.raises(ConfigError, match="in 0 bands"):
        mel_filters(16_000, 512, 0)


@pytest.mark.parametrize(("n_fft", "n_mels"), [(32, 5), (512, 80), (2048, 320)])
def test_bands_and_their_gradient_equal_the_whole_product(n_fft: int, n_mels: int) -> None:
    magnitude = torch.rand(2, 3, n_fft // 2 + 1, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 3, n_mels, dtype=torch.float64)
    whole = magnitude @ mel_filters(44_100, n_fft, n_mels).double().mT
    ours = mel_bands(magnitude, 44_100, n_fft, n_mels)
    torch.testing.assert_close(ours, whole)
    gradients = [torch.autograd.grad((v * weight).sum(), magnitude)[0] for v in (ours, whole)]
    torch.testing.assert_close(*gradients)


def test_filters_hold_numbers_while_a_model_is_built_without() -> None:
    with torch.device("meta"):
        filters = mel_filters(22_051, 512, 20)
    assert torch.equal(filters, mel_filters.__wrapped__(22_051, 512, 20))
