"""How far one sound is from another: the distances that are metrics and, by the same name, losses.

    mel_distance    sum over seven windows of  mean |log10 mel(x_hat) - log10 mel(x)|                     (DAC, Kumar 2023)
    stft_distance   sum over two windows of    mean |log10 |X_hat|^2 - log10 |X|^2| + mean ||X_hat| - |X||  (DAC's paper)
    si_sdr          10 log10(|a x|^2 / |x_hat - a x|^2),  a = <x_hat, x> / <x, x>                          (Le Roux 2019)

Each takes (x_hat, x, sample_rate) with x_hat, x [B, C, T] in [-1, 1], averages over channels and batch, and has a
gradient with respect to x_hat.  To share spectra between terms, the `..._of` forms take a `Spectra`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from audiovae.audio.mel import mel_bands
from audiovae.audio.spectra import Spectra

MEL_BANDS = {32: 5, 64: 10, 128: 20, 256: 40, 512: 80, 1024: 160, 2048: 320}  # window: bands
STFT_WINDOWS = (2048, 512)
FLOOR = 1e-5  # of magnitudes and of mel bands, before the logarithm
_SILENT_ENERGY = 1e-9  # keeps the SI-SDR of silence finite: 90 dB below one full-scale sample


def mel_distance(x_hat: Tensor, x: Tensor, sample_rate: int) -> Tensor:
    """Multi-scale log-mel distance as DAC measures it; 0 if equal, about 1 for a good codec at 8 kb/s.

    Slaney filters, Hann, hop a quarter, log10, floor 1e-5.  Figures at different sample rates do not compare.
    """
    return mel_distance_of(Spectra(x_hat, x), sample_rate)


def mel_distance_of(
    spectra: Spectra, sample_rate: int, windows: Sequence[int] = tuple(MEL_BANDS)
) -> Tensor:
    """`mel_distance` summed over some of its windows (keys of MEL_BANDS)."""
    return torch.stack([_mel_at(spectra, sample_rate, n_fft) for n_fft in windows]).sum()


def stft_distance(x_hat: Tensor, x: Tensor, sample_rate: int) -> Tensor:
    """Multi-scale STFT distance as DAC's paper reports it (audiotools' MultiScaleSTFTLoss); 0 if equal.

    Windows 2048 and 512, Hann, hop a quarter, log10 of the squared magnitude (floored at 1e-5) plus the magnitude itself.
    """
    del sample_rate  # one signature for every distance
    return stft_distance_of(Spectra(x_hat, x))


def stft_distance_of(spectra: Spectra) -> Tensor:
    """`stft_distance` on shared spectra."""
    terms = []
    for n_fft in STFT_WINDOWS:
        a, b = spectra.magnitudes(n_fft, "left_right")
        log_ratio = a.clamp(min=FLOOR).log10() - b.clamp(min=FLOOR).log10()
        terms += [2 * log_ratio.abs().mean(), (a - b).abs().mean()]
    return torch.stack(terms).sum()


def si_sdr(x_hat: Tensor, x: Tensor, sample_rate: int) -> Tensor:
    """Scale-invariant signal-to-distortion ratio in dB, the mean removed; higher is better.

    Bounded by 1e-9 added to both energies, so silence and equality give finite figures.
    """
    del sample_rate  # one signature for every distance
    x_hat = x_hat - x_hat.mean(-1, keepdim=True)
    x = x - x.mean(-1, keepdim=True)
    scale = (x_hat * x).sum(-1, keepdim=True) / (x.square().sum(-1, keepdim=True) + _SILENT_ENERGY)
    signal = (scale * x).square().sum(-1) + _SILENT_ENERGY
    distortion = (x_hat - scale * x).square().sum(-1) + _SILENT_ENERGY
    return 10 * torch.log10(signal / distortion).mean()


def _mel_at(spectra: Spectra, sample_rate: int, n_fft: int) -> Tensor:
    """Mean absolute difference of the log mel bands at one window length."""
    a, b = spectra.magnitudes(n_fft, "left_right")

    def log_mel(magnitude: Tensor) -> Tensor:
        bands = mel_bands(magnitude, sample_rate, n_fft, MEL_BANDS[n_fft])  # [R, F, n_mels]
        return bands.clamp(min=FLOOR).log10()

    return (log_mel(a) - log_mel(b)).abs().mean()
