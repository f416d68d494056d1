"""How a sound of any length passes through a model and comes out as long as it went in.

    blocks [C, T] -> the model's channels and rate -> z [D, F] -> blocks -> the source's rate and channels

Everything goes in blocks, so an hour needs the memory of seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from audiovae.api.opening import Source
from audiovae.audio.io import to_channels
from audiovae.audio.resample import Resampler
from audiovae.errors import AudioError
from audiovae.models import Autoencoder
from audiovae.streaming import code_blocks, decode_blocks, encode_blocks, reconstruct_blocks


def encoded(model: Autoencoder, source: Source, per_channel: bool = False) -> Tensor:
    """The latent of a source: [D, F], or [P, D, F] with each of its P channels alone."""
    parts = [
        torch.cat(list(encode_blocks(model, _as_wanted(model, part))), dim=1)
        for part in _parts(model, source, per_channel)
    ]
    return torch.stack(parts) if per_channel else parts[0]


def coded(model: Autoencoder, source: Source, per_channel: bool = False) -> tuple[Tensor, ...]:
    """The codes of a source: [K, F] for each level, or [P, K, F] with each of its P channels alone."""
    parts = [
        [torch.cat(level, dim=1) for level in zip(*code_blocks(model, blocks), strict=True)]
        for blocks in (_as_wanted(model, part) for part in _parts(model, source, per_channel))
    ]
    if not per_channel:
        return tuple(parts[0])
    return tuple(torch.stack(level) for level in zip(*parts, strict=True))


def decoded(model: Autoencoder, z: Tensor, length: int, source: Source) -> Iterator[Tensor]:
    """The sound of a latent [D, F] or [P, D, F] in blocks [C, T], `length` samples at the model's rate, as the source was."""
    part = source if z.ndim == 2 else source._replace(channels=1)
    return _side_by_side(
        _as_it_was(model, decode_blocks(model, [each], length=length), part)
        for each in (z[None] if z.ndim == 2 else z)
    )


def reconstructed(
    model: Autoencoder, source: Source, per_channel: bool = False
) -> Iterator[Tensor]:
    """A source through the model and back, in blocks [C, T] as it was."""
    return _side_by_side(
        _as_it_was(model, reconstruct_blocks(model, _as_wanted(model, part)), part)
        for part in _parts(model, source, per_channel)
    )


def mixed_down(source: Source, channels: int) -> Source:
    """A source with no more than so many channels."""
    if source.channels <= channels:
        return source
    return source._replace(
        channels=channels,
        blocks=lambda: (to_channels(block, channels) for block in source.blocks()),
    )


def _parts(model: Autoencoder, source: Source, per_channel: bool) -> list[Source]:
    """The sounds that a model sees of a source: itself, or each channel alone.

    Raises AudioError for more channels than the model has: mixed down, they would come back all alike.
    """
    if not per_channel:
        if source.channels > model.channels:
            raise AudioError(
                f"the sound has {source.channels} channels, the model {model.channels}: --per-channel treats each of them "
                "alone, or mix it down first"
            )
        return [source]

    def alone(channel: int) -> Source:
        return source._replace(
            channels=1, blocks=lambda: (block[channel : channel + 1] for block in source.blocks())
        )

    return [alone(channel) for channel in range(source.channels)]


def _as_wanted(model: Autoencoder, source: Source) -> Iterator[Tensor]:
    """A source in blocks of the model's channels, at its rate."""
    adapted = (to_channels(block, model.channels) for block in source.blocks())
    return _resampled(adapted, source.sample_rate, model.sample_rate, model.channels)


def _as_it_was(model: Autoencoder, blocks: Iterable[Tensor], source: Source) -> Iterator[Tensor]:
    """The model's blocks with the rate, the channels and the length of the source."""
    adapted = (to_channels(block, source.channels) for block in blocks)
    resampled = _resampled(adapted, model.sample_rate, source.sample_rate, source.channels)
    return _exactly(resampled, source.frames, source.channels)


def _resampled(
    blocks: Iterable[Tensor], from_rate: int, to_rate: int, channels: int
) -> Iterator[Tensor]:
    """Blocks [C, T] at another rate."""
    resampler = Resampler(from_rate, to_rate, channels)
    for block in blocks:
        yield resampler.push(block)
    yield resampler.finish()


def _exactly(blocks: Iterable[Tensor], frames: int, channels: int) -> Iterator[Tensor]:
    """Blocks cut or filled with silence to this many samples: two roundings can differ by one."""
    left = frames
    for block in blocks:
        yield block[:, :left]
        left -= min(left, block.shape[1])
    yield torch.zeros(channels, left)


def _side_by_side(parts: Iterable[Iterator[Tensor]]) -> Iterator[Tensor]:
    """Sounds of equal blocks as the channels of one."""
    return (torch.cat(blocks) for blocks in zip(*parts, strict=True))
