"""Jukebox's losses: closed forms, and the spectral one written out as published."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from audiovae.losses.jukebox import RESOLUTIONS, l2, linf, multispectral, spectrogram


def sounds(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return x + 0.1 * torch.randn(*shape, generator=generator, dtype=torch.float64), x


def test_l2_is_the_noise_to_signal_ratio() -> None:
    x_hat, x = sounds(4, 1, 50_000)
    assert l2(x_hat, x) == pytest.approx(0.01, rel=0.02)
    torch.testing.assert_close(l2(7 * x_hat, 7 * x), l2(x_hat, x))


def test_linf_hears_the_2048_largest_differences_of_each_clip() -> None:
    x_hat, x = sounds(2, 2, 5000)
    squares = (x_hat - x).square()
    largest = [torch.sort(clip.flatten()).values[-2048:] for clip in squares]
    expected = torch.cat(largest).mean() / x.var(correction=0)
    torch.testing.assert_close(linf(x_hat, x), expected)
    short = linf(x_hat[..., :500], x[..., :500])  # a clip of fewer samples has all of them
    torch.testing.assert_close(short, l2(x_hat[..., :500], x[..., :500]))


def published(x_hat: Tensor, x: Tensor) -> Tensor:
    """Of one clip [T] of one channel."""

    def size(y: Tensor, n_fft: int, hop: int, win: int) -> Tensor:
        window = torch.hann_window(win, dtype=y.dtype)
        spectrum = torch.stft(y, n_fft, hop, win_length=win, window=window, return_complex=True)
        return torch.view_as_real(spectrum).norm(p=2, dim=-1)

    three = zip((2048, 1024, 512), (240, 120, 50), (1200, 600, 240), strict=True)
    distances = [torch.norm(size(x_hat, *each) - size(x, *each)) for each in three]
    return sum(distances) / 3 / torch.norm(size(x, 2048, 256, 6 * 256))


def test_multispectral_is_the_published_one_with_the_clips_own_bandwidth() -> None:
    x_hat, x = sounds(1, 2, 6000)
    torch.testing.assert_close(multispectral(x_hat, x), published(x_hat[0].mean(0), x[0].mean(0)))


def test_a_magnitude_has_no_phase() -> None:
    _, x = sounds(2, 1, 4000)
    torch.testing.assert_close(multispectral(-x, x), torch.tensor(1e-10, dtype=x.dtype), atol=1e-9, rtol=0)  # fmt: skip
    assert spectrogram(x[:, 0], RESOLUTIONS[0]).shape == (2, 1025, 1 + 4000 // 240)


@pytest.mark.parametrize("length", [1, 100, 3000])
@pytest.mark.parametrize("loss", [l2, linf, multispectral])
def test_silence_and_equality_have_finite_gradients(loss, length: int) -> None:
    for x in (torch.zeros(2, 1, length), torch.randn(2, 1, length)):
        for start in (x, torch.zeros_like(x)):
            x_hat = start.clone().requires_grad_()
            value = loss(x_hat, x)
            value.backward()
            assert value.isfinite() and x_hat.grad.isfinite().all()
    assert loss(x, x) < 1e-6
