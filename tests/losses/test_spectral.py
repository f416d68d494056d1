"""Spectral losses against auraloss and against plain autograd; silence and clipping do no harm."""

from __future__ import annotations

import itertools

import auraloss
import pytest
import torch
from torch import Tensor

from audiovae.audio.spectra import Spectra
from audiovae.audio.stereo import mid_side
from audiovae.losses.spectral import (
    WINDOWS,
    compressed_complex,
    magnitude_terms,
    multi_resolution_stft,
)


def sounds(channels: int = 2, length: int = 5000) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    x_hat, x = 0.1 * torch.randn(2, 3, channels, length, generator=generator, dtype=torch.float64)
    return x_hat.requires_grad_(), x


def peer(x_hat: Tensor, x: Tensor) -> Tensor:
    """auraloss's mean over resolutions, as a sum."""
    windows = list(WINDOWS)
    loss = auraloss.freq.MultiResolutionSTFTLoss(
        fft_sizes=windows, hop_sizes=[n // 4 for n in windows], win_lengths=windows
    )
    for part in loss.stft_losses:
        part.window = torch.hann_window(part.fft_size, dtype=x.dtype)
    return len(windows) * loss(x_hat, x)


def test_mono_loss_and_gradient_equal_auraloss() -> None:
    x_hat, x = sounds(channels=1)
    ours, theirs = multi_resolution_stft(Spectra(x_hat, x)), peer(x_hat, x)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=0)
    gradients = [torch.autograd.grad(value, x_hat)[0] for value in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-12)


def test_stereo_loss_is_auraloss_of_mid_side_and_of_left_right() -> None:
    x_hat, x = sounds()
    theirs = (peer(x_hat, x) + peer(mid_side(x_hat), mid_side(x))) / 2
    torch.testing.assert_close(multi_resolution_stft(Spectra(x_hat, x)), theirs, rtol=1e-9, atol=0)


def test_float32_agrees_with_auraloss_in_float64() -> None:
    x_hat, x = sounds()
    ours = multi_resolution_stft(Spectra(x_hat.float(), x.float()))
    theirs = (peer(x_hat, x) + peer(mid_side(x_hat), mid_side(x))) / 2
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)


def plain_compressed_complex(x_hat: Tensor, x: Tensor, n_fft: int) -> Tensor:
    def compressed(sound: Tensor) -> Tensor:
        window = torch.hann_window(n_fft, dtype=x.dtype)
        spectrum = torch.stft(
            sound.flatten(0, 1), n_fft, n_fft // 4, window=window, return_complex=True
        )
        pair = torch.view_as_real(spectrum)
        return pair * (pair.square().sum(-1, keepdim=True) + 1e-6) ** -0.35

    return (compressed(mid_side(x_hat)) - compressed(mid_side(x))).abs().mean()


def test_complex_loss_and_gradient_equal_plain_autograd() -> None:
    x_hat, x = sounds()
    ours = compressed_complex(Spectra(x_hat, x))
    theirs = (
        plain_compressed_complex(x_hat, x, 2048) + plain_compressed_complex(x_hat, x, 512)
    ) / 2
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad(value, x_hat)[0] for value in (ours, theirs)]
    torch.testing.assert_close(*gradients)


def test_only_the_complex_loss_hears_phase() -> None:
    _, x = sounds()
    turned = Spectra(-x, x)
    assert float(multi_resolution_stft(turned)) < 1e-9
    assert float(compressed_complex(turned)) > 0.1


def test_few_windows_have_the_expectation_of_all() -> None:
    spectra = Spectra(*(sound.detach() for sound in sounds()))
    pairs = list(itertools.combinations(WINDOWS, 2))
    mean = sum(float(multi_resolution_stft(spectra, pair)) for pair in pairs) / len(pairs)
    assert mean * len(WINDOWS) / 2 == pytest.approx(float(multi_resolution_stft(spectra)))


def test_mid_side_hears_an_error_of_the_stereo_image() -> None:
    mono = sounds(channels=1)[1].expand(3, 2, -1)
    widened = mono + 0.01 * torch.tensor([[1.0], [-1.0]], dtype=mono.dtype) * mono.flip(-1)
    spectra = Spectra(widened, mono)
    sc, _ = magnitude_terms(spectra, 512, "left_right")
    assert float(sc) < 0.02
    assert float(magnitude_terms(spectra, 512, "mid_side")[1]) > 1  # side rose out of silence


@pytest.mark.parametrize("target", ["silent", "clipped", "dc", "equal", "denormal"])
def test_hostile_crops_give_bounded_values_and_finite_gradients(target: str) -> None:
    x_hat = 0.3 * torch.randn(2, 2, 3000, generator=torch.Generator().manual_seed(3))
    x = {
        "silent": torch.zeros_like(x_hat),
        "clipped": (100 * x_hat).clamp(-1, 1),
        "dc": torch.ones_like(x_hat),
        "equal": x_hat.clone(),
        "denormal": torch.full_like(x_hat, 1e-40),
    }[target]
    for guess in (x_hat, torch.zeros_like(x_hat), x.clone()):
        guess = guess.clone().requires_grad_()
        spectra = Spectra(guess, x)
        for value in (multi_resolution_stft(spectra), compressed_complex(spectra)):
            (gradient,) = torch.autograd.grad(value, guess, retain_graph=True)
            assert gradient.isfinite().all()
            # seven windows, convergence at most 1000 times the rms 0.3
            assert 0 <= float(value) < 7 * 350


def test_a_silent_item_among_sound_changes_the_convergence_little() -> None:
    x_hat, x = sounds()
    quiet = torch.cat([x, torch.zeros_like(x[:1])])
    guess = torch.cat([x_hat, torch.zeros_like(x[:1])])
    with_silence = magnitude_terms(Spectra(guess, quiet), 512, "left_right")[0]
    assert float(with_silence) == pytest.approx(
        float(magnitude_terms(Spectra(x_hat, x), 512, "left_right")[0]), rel=1e-3
    )


def test_one_view_for_each_window_has_the_expectation_of_all_views() -> None:
    x_hat, x = torch.randn(2, 2, 2, 1500, generator=torch.Generator().manual_seed(5)).double()
    spectra, windows = Spectra(x_hat, x), (512, 128)
    some = [
        multi_resolution_stft(spectra, windows, views)
        for views in itertools.product(spectra.views, repeat=2)
    ]
    torch.testing.assert_close(torch.stack(some).mean(), multi_resolution_stft(spectra, windows))
    assert torch.stack(some).std() > 1e-3
