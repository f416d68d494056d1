"""Distances against a second implementation in numpy with librosa's filters, and in closed form."""

from __future__ import annotations

from collections.abc import Callable

import librosa
import numpy as np
import pytest
import torch
from torch import Tensor

from audiovae.audio.compare import mel_distance, si_sdr, stft_distance

RATE = 22_050
DISTANCES = [mel_distance, stft_distance, si_sdr]


def sounds() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = 0.1 * torch.randn(2, 2, 6000, generator=generator, dtype=torch.float64)
    return x + 0.05 * torch.randn(x.shape, generator=generator, dtype=torch.float64), x


def magnitudes(x: Tensor, n_fft: int) -> np.ndarray:
    half = n_fft // 2
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (half, half)), mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft, -1)[..., :: n_fft // 4, :]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    return np.abs(np.fft.rfft(frames * hann)).swapaxes(-1, -2)  # [B, C, N, F]


def test_mel_distance_equals_numpy() -> None:
    x_hat, x = sounds()
    expected = 0.0
    for exponent, n_mels in enumerate((5, 10, 20, 40, 80, 160, 320)):
        n_fft = 32 * 2**exponent
        filters = librosa.filters.mel(sr=RATE, n_fft=n_fft, n_mels=n_mels)
        a, b = (np.log10(np.maximum(filters @ magnitudes(s, n_fft), 1e-5)) for s in (x_hat, x))
        expected += np.abs(a - b).mean()
    assert float(mel_distance(x_hat, x, RATE)) == pytest.approx(expected, rel=1e-6)


def test_stft_distance_equals_numpy() -> None:
    x_hat, x = sounds()
    expected = 0.0
    for n_fft in (2048, 512):
        a, b = (magnitudes(s, n_fft) for s in (x_hat, x))
        logs = [np.log10(np.maximum(s, 1e-5) ** 2) for s in (a, b)]
        expected += np.abs(logs[0] - logs[1]).mean() + np.abs(a - b).mean()
    assert float(stft_distance(x_hat, x, RATE)) == pytest.approx(expected, rel=1e-9)


def test_si_sdr_of_orthogonal_noise_is_its_level() -> None:
    t = torch.arange(RATE, dtype=torch.float64) / RATE
    tone, other = (torch.sin(2 * torch.pi * f * t)[None, None] for f in (100, 300))
    assert float(si_sdr(3 * tone + 0.3 * other, tone, RATE)) == pytest.approx(20.0, abs=1e-6)


def test_si_sdr_does_not_hear_gain_or_offset() -> None:
    x_hat, x = sounds()
    assert float(si_sdr(0.1 * x_hat + 0.2, x, RATE)) == pytest.approx(
        float(si_sdr(x_hat, x, RATE)), abs=1e-4
    )


@pytest.mark.parametrize("distance", [mel_distance, stft_distance])
def test_equal_sounds_have_no_distance(distance: Callable[..., Tensor]) -> None:
    x, _ = sounds()
    assert float(distance(x, x, RATE)) == 0


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("length", [1, 15, 1024])
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_value_and_gradient_are_finite_for_silence_full_scale_and_every_length(
    distance: Callable[..., Tensor], length: int, level: float
) -> None:
    x = torch.full((1, 1, length), level)
    for x_hat in (x.clone(), torch.zeros_like(x), -x):
        value = distance(x_hat.requires_grad_(), x, RATE)
        (gradient,) = torch.autograd.grad(value, x_hat)
        assert value.isfinite()
        assert gradient.isfinite().all()
