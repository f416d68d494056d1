"""The bank of pseudo quadrature mirror filters: what it lets through, what comes back, and the original's filters."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import fmin
from scipy.signal import firwin, kaiserord
from torch import Tensor

from audiovae.audio.pqmf import PQMF, modulated, prototype
from audiovae.errors import ConfigError

ALIASES = 1e-5  # 100 dB


def bank(n_bands: int) -> PQMF:
    return PQMF(n_bands).double()


def overlaps(n_bands: int) -> tuple[float, np.ndarray]:
    """2 M g[0] and (-1)^l 2 M g[2 M l] for l = 1, 2, ...: the taps of the way there and back."""
    h = prototype(n_bands, 100.0)
    g = 2 * n_bands * np.convolve(h, h)[len(h) - 1 :: 2 * n_bands]
    return g[0], g[1:] * (-1.0) ** np.arange(1, len(g))


@pytest.mark.parametrize("n_bands", [2, 4, 16])
def test_there_and_back_is_the_filter_that_the_prototype_says(n_bands: int) -> None:
    """The mean response to impulses at all phases is the closed form; each alone differs by aliases of -100 dB."""
    pqmf, period = bank(n_bands), 2 * n_bands  # the signs have two frames
    length = 2 * period * (2 * pqmf.reach // period + 2)
    middle = length // 2
    x = torch.zeros(period, 1, length, dtype=torch.float64)
    for phase in range(period):
        x[phase, 0, middle + phase] = 1
    y = pqmf.inverse(pqmf(x))[:, 0]
    rows = torch.stack([row.roll(-phase) for phase, row in enumerate(y)])
    expected = torch.zeros(length, dtype=torch.float64)
    first, others = overlaps(n_bands)
    expected[middle] = first
    for number, tap in enumerate(others, start=1):
        expected[middle - period * number] = expected[middle + period * number] = tap
    torch.testing.assert_close(rows.mean(0), expected, rtol=0, atol=1e-6)
    assert (rows - expected).abs().max() < ALIASES


@pytest.mark.parametrize("channels", [1, 2])
def test_reconstruction_is_within_its_bound(channels: int) -> None:
    """|x_hat - x| <= (|2 M g[0] - 1| + 2 sum |2 M g[2 M l]|) max |x| and aliases: half a percent at 16 bands."""
    pqmf = bank(16)
    x = 2 * torch.rand(2, channels, 16 * 200, dtype=torch.float64) - 1
    x_hat = pqmf.inverse(pqmf(x))
    first, others = overlaps(16)
    bound = abs(first - 1) + 2 * np.abs(others).sum()
    assert bound < 0.005
    inside = slice(2 * pqmf.reach, -2 * pqmf.reach)  # beyond the ends the sound counts as zero
    assert (x_hat - x)[..., inside].abs().max() <= 1.05 * bound


def test_a_tone_is_in_its_band_and_rises_with_it() -> None:
    """A quarter above a band's lower edge it is at a quarter of the band's rate, in odd bands too; others are silent."""
    n_bands, frames = 8, 256
    pqmf = bank(n_bands)
    n = torch.arange(n_bands * frames, dtype=torch.float64)
    for band in range(n_bands):
        tone = torch.cos(math.pi * (band + 0.25) / n_bands * n)
        levels = pqmf(tone[None, None])[0][:, 30:-30].abs().amax(1)
        assert levels[band] == levels.max()
        far = [k for k in range(n_bands) if abs(k - band) > 1]
        assert levels[far].max() < 2 * ALIASES * levels[band]
        values = pqmf(tone[None, None])[0, band, 40:-40]
        spectrum = torch.fft.rfft(values * torch.hann_window(len(values), dtype=torch.float64))
        assert int(spectrum.abs().argmax()) == round(0.25 / 2 * len(values))


def published_prototype(n_bands: int) -> np.ndarray:
    """The original's search for it, by scipy."""

    def low_pass(cutoff: float) -> np.ndarray:
        taps, beta = kaiserord(100, cutoff / np.pi)
        taps = 2 * (taps // 2) + 1
        return firwin(taps, cutoff, window=("kaiser", beta), scale=False, fs=2 * np.pi)

    def worst(cutoff: np.ndarray) -> float:
        h = low_pass(float(cutoff[0]))
        overlap = np.convolve(h, h[::-1], "full")
        return np.abs(overlap[len(overlap) // 2 :: 2 * n_bands][1:]).max()

    return low_pass(fmin(worst, 1 / n_bands, disp=0)[0])


@pytest.mark.parametrize("n_bands", [2, 4, 8, 16])
def test_the_prototype_equals_the_published_search(n_bands: int) -> None:
    theirs = published_prototype(n_bands)
    np.testing.assert_allclose(prototype(n_bands, 100.0), theirs, rtol=0, atol=1e-12)


def test_polyphase_equals_the_plain_sum() -> None:
    """y_k[f] = sum h_k[n] x[f M - 1 + n], signs turned, the transpose back: as the original's unhurried form."""
    n_bands, frames = 4, 40
    pqmf = bank(n_bands)
    h = torch.from_numpy(modulated(prototype(n_bands, 100.0), n_bands))
    half = h.shape[1] // 2
    x = torch.randn(1, 1, n_bands * frames, dtype=torch.float64)
    matrix = torch.zeros(n_bands, frames, n_bands * frames, dtype=torch.float64)
    for frame in range(frames):
        for n in range(-half, half + 1):
            if 0 <= frame * n_bands - 1 + n < n_bands * frames:
                matrix[:, frame, frame * n_bands - 1 + n] = h[:, n + half]
    matrix[1::2, ::2] *= -1
    y = pqmf(x)
    torch.testing.assert_close(y[0], matrix @ x[0, 0], rtol=0, atol=1e-6)
    back = n_bands * torch.einsum("kft,kf->t", matrix, y[0])
    torch.testing.assert_close(pqmf.inverse(y)[0, 0], back, rtol=0, atol=1e-6)


def changed(before: Tensor, after: Tensor) -> tuple[int, int]:
    """The first and the last column that differ."""
    columns = (before != after).flatten(0, -2).any(0).nonzero().flatten()
    return int(columns[0]), int(columns[-1])


@pytest.mark.parametrize("n_bands", [2, 5, 16])
def test_reach_is_exact_both_ways(n_bands: int) -> None:
    pqmf, frame = bank(n_bands), 64
    x = torch.randn(1, 1, n_bands * 128, dtype=torch.float64)
    first, last = pqmf.samples_of(frame, frame)
    for sample, reached in ((first - 1, False), (first, True), (last, True), (last + 1, False)):
        other = x.clone()
        other[..., sample] += 100
        assert bool((pqmf(other) != pqmf(x))[0, :, frame].any()) is reached
    bands = torch.randn(1, n_bands, 128, dtype=torch.float64)
    other = bands.clone()
    other[..., frame] += torch.randn(n_bands, dtype=torch.float64)
    touched = changed(pqmf.inverse(bands), pqmf.inverse(other))
    assert touched == (first, last)
    for sample in touched:
        earliest, latest = pqmf.frames_of(sample, sample)
        assert earliest <= frame <= latest
    assert pqmf.frames_of(first, first)[1] == pqmf.frames_of(last, last)[0] == frame


def test_bands_of_channels_stand_side_by_side() -> None:
    pqmf = bank(4)
    x = torch.randn(2, 3, 64, dtype=torch.float64)
    apart = torch.cat([pqmf(x[:, c : c + 1]) for c in range(3)], dim=1)
    torch.testing.assert_close(pqmf(x), apart)


def test_low_precision_around_it_does_not_reach_it() -> None:
    pqmf, x = PQMF(4), torch.randn(1, 1, 400)
    with torch.autocast("cpu", torch.bfloat16):
        bands = pqmf(x)
        torch.testing.assert_close(pqmf.inverse(bands), pqmf.inverse(pqmf(x)))
    torch.testing.assert_close(bands, pqmf(x), rtol=0, atol=0)


@pytest.mark.parametrize(("n_bands", "attenuation"), [(1, 100.0), (16, 50.0)])
def test_a_bank_that_cannot_be_is_refused(n_bands: int, attenuation: float) -> None:
    with pytest.raises(ConfigError, match=f"at least 2 bands .* got {n_bands} and {attenuation}"):
        PQMF(n_bands, attenuation)
