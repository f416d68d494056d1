"""Every error that audiovae raises on purpose, and the checks at its public borders.

    AudioVaeError
    ├── ConfigError        a setting, flag or key that cannot be
    ├── AudioError         a sound or a file of it that cannot be used
    ├── DataError          a data set that cannot be trained on
    ├── CheckpointError    a model folder or run that cannot be loaded or saved
    │   └── DamagedError   one whose files are not what was written
    ├── LatentError        a latent that does not belong to this model
    ├── TrainingError      a training that cannot go on
    ├── OutputError        a result that cannot be written
    └── MissingPackageError  an optional package that is not installed

Each message says what was wrong, what was expected and what to do. The command line prints it as one
line and exits with 2; anything else that escapes is a bug in audiovae.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class AudioVaeError(Exception):
    """The root of the tree above: catch this to catch them all."""


class ConfigError(AudioVaeError):
    """A setting, flag or key that cannot be."""


class AudioError(AudioVaeError):
    """A sound, or a file of it, that cannot be used."""


class DataError(AudioVaeError):
    """A data set that cannot be trained on."""


class CheckpointError(AudioVaeError):
    """A model folder or run that cannot be loaded or saved."""


class DamagedError(CheckpointError):
    """A model folder whose files are not what was written; another checkpoint may be whole."""


class LatentError(AudioVaeError):
    """A latent that does not belong to this model."""


class TrainingError(AudioVaeError):
    """A training that cannot go on."""


class OutputError(AudioVaeError):
    """A result that cannot be written."""


class MissingPackageError(AudioVaeError):
    """An optional package that is not installed."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the closest known word, or the list of known ones.

    >>> did_you_mean("sise", ["size", "width"])
    "; did you mean 'size'?"
    """
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else f"; known are {', '.join(known)}"


def expect_waveform(x: Tensor, channels: int) -> None:
    """Raise AudioError unless x is [B, C, T] with this many channels and at least one sample."""
    if x.ndim != 3:
        raise AudioError(f"a waveform is [batch, channels, samples], got shape {tuple(x.shape)}")
    if x.shape[1] != channels:
        raise AudioError(f"the model has {channels} channel(s), the sound has {x.shape[1]}")
    if x.shape[2] == 0:
        raise AudioError("the sound has 0 samples; at least 1 is needed")
    if not x.is_floating_point():
        raise AudioError(f"samples are floats in [-1, 1], got {x.dtype}")


def expect_latent(z: Tensor, latent_dim: int) -> None:
    """Raise LatentError unless z is [B, D, F] with this latent_dim and at least one frame."""
    if z.ndim != 3 or z.shape[1] != latent_dim or z.shape[2] == 0:
        raise LatentError(f"a latent is [batch, {latent_dim}, frames], got shape {tuple(z.shape)}")


def expect_codes(codes: Tensor, sizes: Sequence[int]) -> None:
    """Raise LatentError unless codes are [B, K, F] integers, K from 1 to all codebooks, within their sizes."""
    if codes.ndim != 3 or not 1 <= codes.shape[1] <= len(sizes) or codes.shape[2] == 0:
        raise LatentError(
            f"codes are [batch, 1 to {len(sizes)} codebooks, frames], got shape {tuple(codes.shape)}"
        )
    if codes.is_floating_point() or codes.is_complex():
        raise LatentError(f"codes are integers, got {codes.dtype}")
    for number, (chosen, size) in enumerate(zip(codes.unbind(1), sizes, strict=False)):
        low, high = int(chosen.min()), int(chosen.max())
        if low < 0 or high >= size:
            raise LatentError(
                f"codebook {number} has codes 0 to {size - 1}, got {low if low < 0 else high}; "
                "do these codes come from this model?"
            )
