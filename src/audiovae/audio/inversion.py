"""From magnitudes back to sound without training: phases by Griffin-Lim, spectra from mel bands.

Fast Griffin-Lim (Perraudin, Balazs & Søndergaard 2013, algorithm 2).  c is the spectrum of a sound, t may be of none;
S are the magnitudes, a the momentum (0 is Griffin & Lim 1984):
    c_n = STFT(inverse(S t_{n-1} / |t_{n-1}|)),    t_n = c_n + a (c_n - c_{n-1})

Mel bands m = W s to the spectrum s >= 0 that they were summed from (Richardson 1972, Lucy 1974):
    s <- s * W'(m / W s) / W'1
Each step corrects a bin by what its bands lack in proportion, so that soft bands come out as exactly as loud ones.
"""

from __future__ import annotations

import torch
from torch import Tensor

from audiovae.audio.transforms import STFT
from audiovae.errors import ConfigError

_TINY = 1e-20  # keeps 0 / 0 away


def griffin_lim(
    magnitude: Tensor,
    stft: STFT,
    *,
    iterations: int = 32,
    momentum: float = 0.99,
    start: Tensor | None = None,
) -> Tensor:
    """Find a sound with these magnitudes.  [..., F, N] as `stft` scales them -> x [..., F * H].

    `start` is the first phases, unit complex numbers that broadcast to the magnitudes; by default `random_phases`.
    A frame's spectrum depends on `reach(...)` frames to each side, and on nothing else in the batch.  Raises ConfigError
    for other bins than the transform's, fewer than 0 iterations or a momentum outside [0, 1].
    """
    if magnitude.shape[-1] != stft.n_bins:
        raise ConfigError(f"the transform has {stft.n_bins} bins, got {magnitude.shape[-1]}")
    if iterations < 0 or not 0 <= momentum <= 1:
        raise ConfigError(
            "Griffin-Lim needs iterations >= 0 and a momentum in [0, 1], "
            f"got {iterations} and {momentum}"
        )
    if start is None:
        start = random_phases(magnitude.shape[-2], stft.n_bins)
    kind = torch.promote_types(magnitude.dtype, torch.complex64)
    spectrum = magnitude * start.to(magnitude.device, kind)
    share, previous = momentum / (1 + momentum), None
    for _ in range(iterations):
        consistent = stft(stft.inverse(spectrum))
        # the phase of c_n - a / (1 + a) c_{n-1} is that of c_n + a (c_n - c_{n-1})
        ahead = consistent if previous is None else consistent - share * previous
        spectrum, previous = magnitude * torch.sgn(ahead), consistent
    return stft.inverse(spectrum)


def random_phases(n_frames: int, n_bins: int, period: int | None = None) -> Tensor:
    """The same unit complex numbers [n_frames, n_bins] at every call, complex128.

    With a `period` they repeat after so many frames: a piece of a sound that begins at a multiple of it then starts from
    the phases that the whole has there.  A short period costs some accuracy: all different is the best start.
    """
    drawn = min(period or n_frames, n_frames)
    generator = torch.Generator().manual_seed(0)
    turns = torch.rand(drawn, n_bins, dtype=torch.float64, generator=generator)
    turns = turns.repeat(-(-n_frames // drawn), 1)[:n_frames]
    return torch.polar(torch.ones_like(turns), 2 * torch.pi * turns)


def reach(stft: STFT, iterations: int) -> int:
    """Frames to each side on which the spectrum of a frame depends after so many iterations.

    Once round, a frame hears all whose windows overlap with its own.
    """
    return iterations * (stft.win_length // stft.hop_length - 1)


def mel_inverse(bands: Tensor, filters: Tensor, *, steps: int = 32) -> Tensor:
    """Find the magnitudes behind mel bands.  [..., M] and filters [M, N] -> [..., N], none below 0.

    Bins that no filter covers are 0.
    """
    cover = filters.sum(0)  # [N]
    per_bin = filters / cover.clamp_min(_TINY)  # W / W'1
    spectrum = (bands / filters.sum(1).clamp_min(_TINY)) @ per_bin
    for _ in range(steps):
        spectrum = spectrum * ((bands / (spectrum @ filters.mT).clamp_min(_TINY)) @ per_bin)
    return spectrum


def mel_envelope(filters: Tensor) -> tuple[Tensor, Tensor]:
    """Weights A [N, M] and offsets b [N]: log10 of a smooth spectrum behind bands m is A log10(m) + b.

    Each bin lies between the means of the two bands that cover it, in proportion; a bin without any has the nearest's.
    Exact for a flat spectrum.
    """
    area = filters.sum(1)  # [M]
    triangles = filters / filters.amax(1, keepdim=True)
    bare = (triangles.sum(0) == 0).nonzero().flatten()
    centres = triangles.argmax(1)  # [M]
    nearest = (bare[:, None] - centres).abs().argmin(1)
    weights = triangles.mT.clone()  # [N, M]
    weights[bare, nearest] = 1
    weights = weights / weights.sum(1, keepdim=True)
    return weights, -(weights @ area.log10())
