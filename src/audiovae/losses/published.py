"""Reconstruction losses as published systems define them, for the recipes that carry their names.

a_weighted_stft  Stable Audio (stable-audio-tools): of A-weighted sounds, the mean over windows of
                 sc + mag, sc of each row for itself; sum and difference half each, left and right half each
audiocraft_mel   EnCodec in AudioCraft: over windows 64 to 1024, L1 of 64 mel powers + L2 of their log10, in all / 10
rave_distance    RAVE: over windows 2048 to 128,  mean (X - Y)^2 / mean Y^2  +  mean |log(X + e) - log(Y + e)|
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from audiovae.audio.a_weighting import a_weighted
from audiovae.audio.mel import mel_filters
from audiovae.audio.spectra import hann, stft

WINDOWS = (2048, 1024, 512, 256, 128, 64, 32)
MAGNITUDE_FLOOR = 1e-4  # power 1e-8
MEL_WINDOWS = (64, 128, 256, 512, 1024)
MEL_BANDS, MEL_LOW_HZ, MEL_FLOOR = 64, 64.0, 1e-5
RAVE_WINDOWS = (2048, 1024, 512, 256, 128)
RAVE_EPSILON = 1e-7


def a_weighted_stft(x_hat: Tensor, x: Tensor, sample_rate: int) -> Tensor:
    """Stable Audio's spectral loss of x_hat, x [B, C, T]; other numbers of channels than two count as they are."""
    heard_hat, heard = (a_weighted(side, sample_rate) for side in (x_hat, x))
    rows = _resolutions(heard_hat.flatten(0, 1), heard.flatten(0, 1))
    if x.shape[1] != 2:
        return rows
    (left_hat, right_hat), (left, right) = heard_hat.unbind(1), heard.unbind(1)
    of_sum = _resolutions(left_hat + right_hat, left + right)
    of_difference = _resolutions(left_hat - right_hat, left - right)
    # left and right have half the weight each: the mean over both rows is their half-weighted sum
    return (of_sum + of_difference) / 2 + rows


def audiocraft_mel(x_hat: Tensor, x: Tensor, sample_rate: int) -> Tensor:
    """AudioCraft's multi-scale mel loss of x_hat, x [B, C, T]."""
    total = x.new_zeros(())
    for n_fft in MEL_WINDOWS:
        a, b = (_mel_powers(side.flatten(0, 1), sample_rate, n_fft) for side in (x_hat, x))
        total = total + functional.l1_loss(a, b)
        total = total + functional.mse_loss((MEL_FLOOR + a).log10(), (MEL_FLOOR + b).log10())
    return total / (2 * len(MEL_WINDOWS))


def rave_distance(x_hat: Tensor, x: Tensor) -> Tensor:
    """RAVE's spectral distance of x_hat to x, [..., T]: of sounds, or of the bands of a filter bank."""
    total = x.new_zeros(())
    for n_fft in RAVE_WINDOWS:
        a, b = (stft(side.reshape(-1, side.shape[-1]), n_fft).abs() for side in (x_hat, x))
        total = total + (a - b).square().mean() / b.square().mean().clamp(min=RAVE_EPSILON**2)
        total = total + ((a + RAVE_EPSILON).log() - (b + RAVE_EPSILON).log()).abs().mean()
    return total


def _resolutions(x_hat: Tensor, x: Tensor) -> Tensor:
    """Spectral convergence of each row [R, T] plus log-magnitude L1, the mean over windows.

    Divided by the norm of x_hat, not of x: stable-audio-tools gives auraloss its arguments in that order, and says so.
    """
    total = x.new_zeros(())
    for n_fft in WINDOWS:
        a, b = (
            (s.real.square() + s.imag.square()).clamp(min=MAGNITUDE_FLOOR**2).sqrt()
            for s in (stft(x_hat, n_fft), stft(x, n_fft))
        )
        convergence = (a - b).flatten(1).norm(dim=1) / a.flatten(1).norm(dim=1)
        total = total + convergence.mean() + (a.log() - b.log()).abs().mean()
    return total / len(WINDOWS)


def _mel_powers(rows: Tensor, sample_rate: int, n_fft: int) -> Tensor:
    """Rows [R, T] -> mel powers [R, F, 64], frames of n_fft a quarter apart, ceil(T / hop) of them."""
    hop, window = n_fft // 4, hann(n_fft, rows.dtype, rows.device)
    beside = (n_fft - hop) // 2
    short = beside + 1 - rows.shape[-1]
    rows = functional.pad(rows, (0, short)) if short > 0 else rows
    padded = functional.pad(rows, (beside, beside), "reflect")
    missing = -(padded.shape[-1] - n_fft) % hop
    frames = functional.pad(padded, (0, missing)).unfold(-1, n_fft, hop) * window
    spectrum = torch.fft.rfft(frames)
    power = (spectrum.real.square() + spectrum.imag.square()) / window.square().sum()
    filters = mel_filters(
        sample_rate, n_fft, MEL_BANDS, low_hz=MEL_LOW_HZ, scale="htk", slaney_norm=False
    )
    powers: Tensor = power @ filters.to(power).mT
    return powers
