"""Log spectrograms: librosa's numbers, and the magnitudes behind them."""

import math

import librosa
import numpy as np
import pytest
import torch

from audiovae.audio.log_spectrogram import LogSpectrogram
from audiovae.audio.mel import mel_filters
from audiovae.audio.transforms import window_margins
from audiovae.errors import ConfigError

RATE, N_FFT, HOP = 16_000, 512, 128


def noise(*shape: int) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("n_mels", [None, 64])
def test_bands_equal_librosa(n_mels: int | None) -> None:
    x = noise(2, 2, 20 * HOP)
    x[0, 0] = 0  # silence lies on the floor
    padded = torch.nn.functional.pad(x, window_margins(N_FFT, HOP, causal=False)).numpy()
    if n_mels is None:
        spectrum = librosa.stft(padded, n_fft=N_FFT, hop_length=HOP, center=False)
        expected = np.abs(spectrum)[..., :-1, :]
    else:
        expected = librosa.feature.melspectrogram(
            y=padded, sr=RATE, n_fft=N_FFT, hop_length=HOP, center=False, n_mels=n_mels, power=1.0
        )
    ours = LogSpectrogram(RATE, N_FFT, HOP, n_mels)(x)
    expected = np.log10(np.maximum(expected, 1e-5))
    assert ours.shape == expected.shape
    np.testing.assert_allclose(ours.numpy(), expected, atol=2e-3)
    assert (ours[0, 0] == math.log10(torch.tensor(1e-5))).all()


def test_a_full_scale_sine_has_a_quarter_of_the_window() -> None:
    x = torch.sin(2 * math.pi * 40 * torch.arange(40 * HOP) / N_FFT)[None, None]
    bands = LogSpectrogram(RATE, N_FFT, HOP, None)(x)
    assert bands[0, 0, 40, 20].item() == pytest.approx(math.log10(N_FFT / 4), abs=1e-4)


def test_magnitudes_have_the_bands_that_they_were_made_from() -> None:
    spectrogram = LogSpectrogram(RATE, N_FFT, HOP, 64)
    bands = spectrogram(noise(1, 1, 20 * HOP))
    magnitude = spectrogram.magnitude(bands) * N_FFT**0.5
    again = (magnitude @ mel_filters(RATE, N_FFT, 64).mT).log10().mT
    torch.testing.assert_close(again, bands, rtol=0, atol=0.02)  # 0.4 dB


def test_without_mel_bands_both_magnitudes_are_exact_but_for_the_last_bin() -> None:
    spectrogram, x = LogSpectrogram(RATE, N_FFT, HOP, None), noise(1, 2, 20 * HOP)
    bands, expected = spectrogram(x), spectrogram.bank(x).abs()
    expected[..., -1] = 0
    torch.testing.assert_close(spectrogram.magnitude(bands), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(spectrogram.envelope(bands), expected, rtol=1e-4, atol=1e-6)


def test_the_envelope_of_white_noise_is_its_level() -> None:
    spectrogram = LogSpectrogram(RATE, N_FFT, HOP, 64)
    x = noise(1, 1, 400 * HOP)
    envelope = spectrogram.envelope(spectrogram(x))[0, 0, 4:-4, 8:-8]
    level = spectrogram.bank(x).abs()[0, 0, 4:-4, 8:-8].mean()
    assert envelope.mean().item() == pytest.approx(level.item(), rel=0.05)


def test_a_guess_beyond_any_sound_stays_finite() -> None:
    for n_mels in (None, 64):
        spectrogram = LogSpectrogram(RATE, N_FFT, HOP, n_mels)
        bands = torch.full((1, 1, spectrogram.n_bands, 4), 1e4, requires_grad=True)
        assert spectrogram.magnitude(bands).isfinite().all()
        spectrogram.envelope(bands).sum().backward()
        assert bands.grad is not None
        assert bands.grad.isfinite().all()


def test_low_precision_does_not_reach_the_logarithm() -> None:
    spectrogram, x = LogSpectrogram(RATE, N_FFT, HOP, 64), noise(1, 1, 20 * HOP)
    expected = spectrogram(x)
    with torch.autocast("cpu", torch.bfloat16):
        bands = spectrogram(x)
        assert torch.equal(bands, expected)
        assert torch.equal(spectrogram.envelope(bands), spectrogram.envelope(expected))


def test_bands_narrower_than_a_bin_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"of 200 mel bands are narrower .* 512 at 16000 Hz; lower n_mels or"
    ):
        LogSpectrogram(RATE, N_FFT, HOP, 200)
