"""Exact chunked coding: sounds of any length in constant memory, equal to coding them in one piece.

A unit (a latent frame, or a segment of several) depends on `encoder_context` samples around its own, a
decoded unit on `decoder_context` latent frames: the halo. So each chunk is coded together with its halo,
and only the chunk is kept. The chunks are whole units, and at the two ends of the sound the halo is cut,
not padded, because the layers themselves pad there. Where the halo is the whole sound, so is the chunk.
A decoder that hears its own past (`begin_decoding`) goes on from chunk to chunk instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from audiovae.bottlenecks import Bottled
from audiovae.errors import AudioError, ConfigError, LatentError
from audiovae.models.base import UNLIMITED, Autoencoder

HALOS_A_CHUNK = 8  # a chunk of eight halos: a ninth of the work is spent twice
FEWEST_FRAMES = 32  # below this, calls cost more than the work in them


def encode_blocks(
    model: Autoencoder, blocks: Iterable[Tensor], *, chunk_frames: int | None = None
) -> Iterator[Tensor]:
    """Encode a sound that comes in blocks.  [C, any T] each -> the posterior's mean, [D, F] each.

    Together the results equal `model.encode` of the whole sound. `chunk_frames` latent frames are
    encoded at a time (by default eight halos): fewer take less memory and more time. Raises AudioError
    for a block of another shape or when no sample comes at all, ConfigError for fewer than 1 frame.
    """
    for piece in _encoded(model, blocks, chunk_frames):
        yield piece.trimmed(piece.bottled.z[0])


def code_blocks(
    model: Autoencoder, blocks: Iterable[Tensor], *, chunk_frames: int | None = None
) -> Iterator[tuple[Tensor, ...]]:
    """Encode a sound that comes in blocks to codes.  [C, any T] each -> for each level of codes [K, F].

    As `encode_blocks`. Raises LatentError if the model's latent is continuous.
    """
    if not model.codebook_sizes:
        raise LatentError("the model has no codes: its latent is continuous")
    for piece in _encoded(model, blocks, chunk_frames):
        yield tuple(piece.trimmed(codes[0]) for codes in piece.bottled.codes)


class _Encoded(NamedTuple):
    """A chunk with its halo, encoded; `first` to `last` of its latent frames are wanted."""

    bottled: Bottled
    first: int
    last: int
    units: slice  # those of the chunk

    def trimmed(self, values: Tensor) -> Tensor:
        """The wanted part of [..., values of any level] on the CPU."""
        frames = self.bottled.z.shape[-1]
        if values.shape[-1] < frames:  # a coarse level has one value for each unit
            return _handed_over(values[..., self.units])
        rate = values.shape[-1] // frames  # a fine one has several to each latent frame
        return _handed_over(values[..., self.first * rate : self.last * rate])


def _handed_over(values: Tensor) -> Tensor:
    """On the CPU; what autocast left in bfloat16 as float32."""
    return (values.float() if values.dtype == torch.bfloat16 else values).cpu()


def _encoded(
    model: Autoencoder, blocks: Iterable[Tensor], chunk_frames: int | None
) -> Iterator[_Encoded]:
    samples, frames = model.unit
    left, right = model.encoder_context
    left = -(-left // samples) * samples
    halo = UNLIMITED if UNLIMITED in model.encoder_context else (left + right) * frames // samples
    step = _chunk_frames(chunk_frames, halo, frames) // frames * samples
    device = _device(model)
    empty = True
    for window in _windows(_checked_sound(blocks, model.channels), step, left, right):
        empty = False
        with torch.inference_mode():
            bottled = model.encode(window.values[None].to(device))
        wanted, length = window.skip + window.keep, window.values.shape[-1]
        count = bottled.z.shape[-1]
        yield _Encoded(
            bottled,
            first=count - model.frames_of(length - window.skip),
            last=count - model.frames_of(length - wanted),
            units=slice(window.skip // samples, -(-wanted // samples)),
        )
    if empty:
        raise AudioError("the sound has 0 samples; at least 1 is needed")


def decode_blocks(
    model: Autoencoder,
    latents: Iterable[Tensor],
    *,
    length: int | None = None,
    chunk_frames: int | None = None,
) -> Iterator[Tensor]:
    """Decode a latent that comes in blocks.  [D, any F] each -> [C, T] each.

    Together the results equal `model.decode` of the whole latent, `length` samples of it if given.
    `chunk_frames` as in `encode_blocks`. Raises LatentError for a block of another shape or when no
    frame comes at all, ConfigError for fewer than 1 frame.
    """
    samples, frames = model.unit
    remembers = model.begin_decoding()
    decode = remembers or model.decode
    left, right = (0, 0) if remembers else model.decoder_context
    step = _chunk_frames(chunk_frames, left + right, frames)
    device = _device(model)
    given = 0
    for window in _windows(_checked_latent(latents, model.latent_dim), step, left, right):
        with torch.inference_mode():
            x_hat = decode(window.values[None].to(device))[0]  # [C, T]
        first, wanted = window.skip // frames * samples, window.skip + window.keep
        more = wanted < window.values.shape[-1]
        last = wanted // frames * samples if more else x_hat.shape[-1]
        chunk = x_hat[:, first : last if length is None else min(last, first + length - given)]
        given += last - first
        yield _handed_over(chunk)
        if length is not None and given >= length:
            return
    if not given:
        raise LatentError("the latent has 0 frames; at least 1 is needed")


def reconstruct_blocks(
    model: Autoencoder, blocks: Iterable[Tensor], *, chunk_frames: int | None = None
) -> Iterator[Tensor]:
    """Encode and decode a sound that comes in blocks.  [C, any T] each -> [C, T] each.

    As many samples come out as went in. Raises as `encode_blocks` does.
    """
    taken = given = 0

    def counted() -> Iterator[Tensor]:
        nonlocal taken
        for block in _checked_sound(blocks, model.channels):
            taken += block.shape[-1]
            yield block

    latents = encode_blocks(model, counted(), chunk_frames=chunk_frames)
    for chunk in decode_blocks(model, latents, chunk_frames=chunk_frames):
        kept = chunk[
            :, : taken - given
        ]  # only the padding of the last frame is beyond what was taken
        given += kept.shape[-1]
        yield kept


class _Window(NamedTuple):
    """A stretch of the sequence: `keep` values that are wanted after `skip` of halo, then more halo."""

    values: Tensor  # [channels, n]
    skip: int
    keep: int


def _windows(blocks: Iterable[Tensor], step: int, left: int, right: int) -> Iterator[_Window]:
    """Cut a sequence into steps, each with its halo, which is shorter at the two ends."""
    source = iter(blocks)
    parts: list[Tensor] = []
    held = skip = 0  # values in parts; halo before the next step
    while True:
        while held < skip + step + right:
            block = next(source, None)
            if block is None:
                break
            parts.append(block)
            held += block.shape[-1]
        if held <= skip:
            return
        values = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        end = min(held, skip + step + right)
        yield _Window(values[:, :end], skip, min(step, held - skip))
        done = min(skip + step, held)
        skip = min(left, done)
        parts = [values[:, done - skip :]]
        held = parts[0].shape[-1]


def _chunk_frames(asked: int | None, halo: int, unit: int) -> int:
    """Frames a chunk has: what was asked for, or enough that the halo costs little; whole units in any case."""
    if asked is not None and asked < 1:
        raise ConfigError(f"chunk_frames must be at least 1, got {asked}")
    if asked is None or halo >= UNLIMITED:
        asked = max(HALOS_A_CHUNK * halo, FEWEST_FRAMES)
    return -(-asked // unit) * unit


def _checked_sound(blocks: Iterable[Tensor], channels: int) -> Iterator[Tensor]:
    for block in blocks:
        if block.ndim != 2 or block.shape[0] != channels or not block.is_floating_point():
            raise AudioError(
                f"a block of sound is [{channels}, samples] of floats, "
                f"got shape {tuple(block.shape)} of {block.dtype}"
            )
        yield block


def _checked_latent(blocks: Iterable[Tensor], latent_dim: int) -> Iterator[Tensor]:
    for block in blocks:
        if block.ndim != 2 or block.shape[0] != latent_dim:
            raise LatentError(
                f"a block of latent is [{latent_dim}, frames], got shape {tuple(block.shape)}"
            )
        yield block


def _device(model: Autoencoder) -> torch.device:
    return next(model.parameters()).device
