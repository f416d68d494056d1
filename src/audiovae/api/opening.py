"""From what a caller gives to what a verb works with: a loaded model, a sound in blocks, a device, threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from audiovae import checkpoint
from audiovae.api.codecs import sounding
from audiovae.api.parameters import Device, Precision
from audiovae.audio.io import Sound, expect_channels, inspect, read_blocks
from audiovae.errors import AudioError, ConfigError
from audiovae.models import Autoencoder
from audiovae.models.spec_conv import SpecConv
from audiovae.training.device import autocast, choose_device

BLOCK = 1 << 17  # samples read at once: 3 s at 44.1 kHz


class Source(NamedTuple):
    """A sound that can be read more than once, block by block."""

    sample_rate: int  # Hz
    channels: int
    frames: int  # samples of each channel
    blocks: Callable[[], Iterator[Tensor]]  # of [C, T]


def open_model(model: Autoencoder | str | Path, device: Device = "auto") -> Autoencoder:
    """Load a model on a device; one that is loaded already stays as it is, on "auto" also where it is.

    A token model comes with its codec around it, as an autoencoder of sounds.
    """
    if not isinstance(model, Autoencoder):
        model = checkpoint.load(model, device=choose_device(device))
    elif device != "auto":
        model = model.to(choose_device(device))
    return sounding(model)


def inverses_of(model: Autoencoder) -> list[str]:
    """The ways a spectrogram VAE has to make sound; none of a model that makes it in one way only."""
    return sorted(model.inverses) if isinstance(model, SpecConv) else []


@contextmanager
def inverted_by(model: Autoencoder, inverse: str | None) -> Iterator[None]:
    """Let a model make sound in a way of its `inverses_of`, for a while; None is its own.

    Raises ConfigError if it has no such way.
    """
    if inverse is None:
        yield
        return
    if not isinstance(model, SpecConv):
        kind = model.config.model_dump()["kind"]
        raise ConfigError(
            f"inverse {inverse} is for spectrogram VAEs, this model is a {kind}; leave it out"
        )
    own, model.inverse = model.inverse, inverse
    try:
        yield
    finally:
        model.inverse = own


def open_source(sound: Any, sample_rate: int | None = None, per_channel: bool = False) -> Source:
    """A file, a `Sound` or an array as a source.

    Raises AudioError for what `audio.io.inspect` refuses, for arrays that are not a finite float [C, T] or [T],
    and for more than two channels unless `per_channel`.
    """
    if isinstance(sound, str | Path):
        info = inspect(sound)
        expect_channels(sound, info.channels, per_channel)

        def blocks() -> Iterator[Tensor]:
            return read_blocks(sound, BLOCK, per_channel=per_channel)

        return Source(info.sample_rate, info.channels, info.frames, blocks)
    array, rate = sound if isinstance(sound, Sound) else (sound, sample_rate)
    samples = as_samples(array)
    if rate is None:
        raise AudioError("an array does not say how fast it goes: give sample_rate=, in Hz")
    if rate < 1:
        raise AudioError(f"sample_rate is in Hz, at least 1, got {rate}")
    expect_channels("the array", len(samples), per_channel)
    channels, frames = samples.shape
    return Source(rate, channels, frames, lambda: iter(samples.split(BLOCK, dim=1)))


def as_samples(array: Any) -> Tensor:
    """An array or a tensor as samples [C, T] float32 on the CPU."""
    if isinstance(array, np.ndarray):
        array = torch.from_numpy(np.ascontiguousarray(array))
    if not isinstance(array, Tensor):
        raise AudioError(f"a sound is a path, an array or a Sound, got {type(array).__name__}")
    if not array.is_floating_point():
        raise AudioError(f"samples are floats in [-1, 1], got {array.dtype}; divide by full scale")
    if array.ndim not in (1, 2) or 0 in array.shape:
        raise AudioError(f"samples are [channels, samples] or [samples], got {tuple(array.shape)}")
    if not array.isfinite().all():
        raise AudioError("the samples hold NaN or Inf")
    return array.detach().reshape(-1, array.shape[-1]).to("cpu", torch.float32)


@contextmanager
def at_work(
    model: Autoencoder | str | Path,
    device: Device = "auto",
    threads: int | None = None,
    precision: Precision = "fp32",
) -> Iterator[Autoencoder]:
    """A model opened for use: in `eval()`, without gradients, on so many threads; at the end all is as it was."""
    with computing(threads):
        opened = open_model(model, device)
        place = next(opened.parameters()).device
        training = [module for module in opened.modules() if module.training]
        opened.eval()
        try:
            with autocast(place, precision == "bf16"):
                yield opened
        finally:
            for module in training:
                module.training = True


@contextmanager
def computing(threads: int | None = None) -> Iterator[None]:
    """Compute without gradients, on this many threads; the caller's number is set again at the end."""
    before = torch.get_num_threads()
    if threads is not None and threads < 1:
        raise ConfigError(f"threads must be at least 1, got {threads}")
    torch.set_num_threads(threads or before)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_num_threads(before)
