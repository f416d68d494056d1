"""The losses of Jukebox's VQ-VAE (Dhariwal 2020, arXiv 2005.00341, sec. 3.1 and app. B.1).

    l2              mean (x_hat - x)^2 / b
    linf            mean over the 2048 largest (x_hat - x)^2 of a clip / b
    multispectral   mean over three resolutions of  || |X_hat| - |X| || / s,   Frobenius norms over a clip

b and s are the "bandwidths" of the data: the variance of its samples and the mean norm of a clip's spectrogram. The
original measures them over ten minutes of its data beforehand; here they are those of the batch, which needs nothing
beforehand and knows no length of the clips.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from audiovae.audio.spectra import magnitude

LOUDEST = 2048  # samples of a clip that the linf term sees
SILENCE_RMS = 1e-3  # -60 dBFS: a quieter batch counts as if it were this loud


class Resolution(NamedTuple):
    """A spectrogram's dimensions in samples, made for 44.1 kHz."""

    n_fft: int
    hop_length: int
    win_length: int


RESOLUTIONS = (Resolution(2048, 240, 1200), Resolution(1024, 120, 600), Resolution(512, 50, 240))
BANDWIDTH = Resolution(2048, 256, 1536)  # where s is measured


def l2(x_hat: Tensor, x: Tensor) -> Tensor:
    """Mean squared difference over the variance of x.  x_hat, x [B, C, T]."""
    return (x_hat - x).square().mean() / variance(x)


def linf(x_hat: Tensor, x: Tensor) -> Tensor:
    """The same over each clip's largest differences only.  x_hat, x [B, C, T]."""
    squares = (x_hat - x).square().flatten(1)
    return squares.topk(min(LOUDEST, squares.shape[1]), dim=1).values.mean() / variance(x)


def multispectral(x_hat: Tensor, x: Tensor) -> Tensor:
    """Distance of magnitude spectrograms, the channels averaged.  x_hat, x [B, C, T]."""
    x_hat, x = x_hat.mean(1), x.mean(1)  # [B, T]
    loudness = torch.linalg.vector_norm(spectrogram(x, BANDWIDTH), dim=(1, 2)).mean()
    n_fft, hop_length, win_length = BANDWIDTH
    cells = (1 + x.shape[-1] // hop_length) * (n_fft // 2 + 1)
    quiet = (
        SILENCE_RMS * (3 * win_length / 8 * cells) ** 0.5
    )  # a Hann window has the energy 3 N / 8
    distances = []
    for resolution in RESOLUTIONS:
        difference = spectrogram(x_hat, resolution) - spectrogram(x, resolution)
        # the root of a sum that is at least 1e-20: a finite gradient where both are equal
        distances.append(difference.square().sum((1, 2)).clamp(min=1e-20).sqrt().mean())
    distance: Tensor = torch.stack(distances).mean() / loudness.clamp(min=quiet)
    return distance


def variance(x: Tensor) -> Tensor:
    """The variance of all samples of a batch, at least that of noise at -60 dBFS."""
    return x.var(correction=0).clamp(min=SILENCE_RMS**2)


def spectrogram(x: Tensor, resolution: Resolution) -> Tensor:
    """Magnitudes of centred frames, the ends reflected, short sounds first continued by zeros.  [B, T] -> [B, N, F]."""
    n_fft, hop_length, win_length = resolution
    short = n_fft // 2 + 1 - x.shape[-1]
    x = torch.nn.functional.pad(x, (0, short)) if short > 0 else x
    window = torch.hann_window(win_length, dtype=x.dtype, device=x.device)
    return magnitude(
        torch.stft(x, n_fft, hop_length, win_length, window, return_complex=True).contiguous()
    )
