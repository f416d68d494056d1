"""Batches of sounds of unequal length, padded with zeros beside a mask; each comes out as it does alone.

Zeros after a sound are sound to a net: biases and norms make something of them, and it reaches back into the last frames.
So padding is never coded: sounds of one length go through together, and what comes out is padded again.

    x [B, C, T], mask [B, T]  ->  z [B, D, F], codes, mask [B, F]  ->  x_hat [B, C, T]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from audiovae.errors import AudioError, LatentError
from audiovae.models import Autoencoder


class PaddedLatent(NamedTuple):
    """The latents of several sounds, zeros where an item has ended."""

    z: Tensor  # [B, D, F]
    codes: tuple[Tensor, ...]  # [B, K, F * rate] of each level, coarse first; empty if continuous
    mask: Tensor  # [B, F] bool, True in the frames that an item has


def pad(sounds: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Sounds [C, any T] each -> x [B, C, T] with zeros after the shorter ones, mask [B, T]."""
    if not sounds:
        raise AudioError("there is no sound to pad; give at least one [C, T]")
    lengths = torch.tensor([sound.shape[-1] for sound in sounds])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    return _side_by_side(sounds), mask.to(sounds[0].device)


def encode_padded(model: Autoencoder, x: Tensor, mask: Tensor) -> PaddedLatent:
    """Encode each sound of a batch as if it were alone.  x [B, C, T], mask [B, T] True from the first sample on.

    Raises AudioError for a mask of another shape, with a hole or with an item that has no sample.
    """
    lengths = _lengths(x, mask)
    z: list[Tensor] = [x] * len(x)
    codes: list[tuple[Tensor, ...]] = [()] * len(x)
    for length, items in _of_one_length(lengths):
        bottled = model.encode(x[items, :, :length])
        for place, item in enumerate(items):
            z[item] = bottled.z[place]
            codes[item] = tuple(level[place] for level in bottled.codes)
    frames = torch.tensor([latent.shape[-1] for latent in z])
    there = torch.arange(int(frames.max())) < frames[:, None]
    levels = tuple(_side_by_side(level) for level in zip(*codes, strict=True))
    return PaddedLatent(_side_by_side(z), levels, there.to(x.device))


def decode_padded(model: Autoencoder, z: Tensor, mask: Tensor) -> Tensor:
    """Decode each latent of a batch as if it were alone.  z [B, D, F], mask [B, T] of the sounds -> x_hat [B, C, T].

    Zeros where the mask is False. Raises LatentError if z has fewer frames than a sound needs.
    """
    lengths = _lengths(z, mask)
    x_hat = z.new_zeros(len(z), model.channels, mask.shape[1])
    for length, items in _of_one_length(lengths):
        frames = model.frames_of(length)
        if frames > z.shape[-1]:
            raise LatentError(f"{length} samples need {frames} latent frames, got {z.shape[-1]}")
        x_hat[items, :, :length] = model.decode(z[items, :, :frames], length).to(x_hat)
    return x_hat


def _lengths(x: Tensor, mask: Tensor) -> list[int]:
    """Samples of each item."""
    if mask.dtype != torch.bool or mask.ndim != 2 or len(mask) != len(x):
        raise AudioError(
            f"a mask is bool [{len(x)}, samples], got {mask.dtype} of shape {tuple(mask.shape)}"
        )
    lengths = mask.sum(1)
    if bool((lengths == 0).any()) or not torch.equal(
        mask, torch.arange(mask.shape[1], device=mask.device) < lengths[:, None]
    ):
        raise AudioError(
            "a mask is True from an item's first sample to its last, and False after it"
        )
    return [int(length) for length in lengths]


def _of_one_length(lengths: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """Each length with the items that have it."""
    for length in sorted(set(lengths)):
        yield length, [item for item, own in enumerate(lengths) if own == length]


def _side_by_side(items: Sequence[Tensor]) -> Tensor:
    """[..., any n] each -> [B, ..., n], zeros after the shorter ones."""
    padded = pad_sequence([item.movedim(-1, 0) for item in items], batch_first=True)
    return padded.movedim(1, -1)
