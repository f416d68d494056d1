"""Sound files in and out, through libsndfile: wav, flac, ogg, opus, mp3, aiff.

What is read is whole and finite or an error: the file is judged before it is decoded (`opening`), and its
samples are counted and looked at. What is written is whole or not there: it grows beside its name and takes
the name when it is complete.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
import soundfile
import torch
from torch import Tensor

from audiovae.audio.opening import (
    FilePath,
    UnusableFileError,
    for_libsndfile,
    open_sound,
    reason_of,
    shown,
)
from audiovae.errors import AudioError, OutputError, did_you_mean
from audiovae.paths import replacing

__all__ = [
    "BlockWriter",
    "FORMATS",
    "FilePath",
    "Sound",
    "SoundInfo",
    "UnusableFileError",
    "expect_channels",
    "expect_free",
    "inspect",
    "next_samples",
    "read",
    "read_blocks",
    "shown",
    "to_channels",
    "write",
]

FORMATS = {  # by suffix: libsndfile's container and the coding it gets by default
    ".wav": ("WAV", "PCM_24"),
    ".rf64": ("RF64", "PCM_24"),  # a WAV without its limit of 4 GiB
    ".flac": ("FLAC", "PCM_24"),
    ".aiff": ("AIFF", "PCM_24"),
    ".aif": ("AIFF", "PCM_24"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}
WRITE_LIMIT = 1 << 16  # samples in one call: libvorbis puts them on the stack, millions crash it
WAV_LIMIT = 2**32 - 2**16  # bytes of sound: the sizes in a WAV have 32 bits


class Sound(NamedTuple):
    """Samples and how fast they go."""

    samples: Tensor  # [C, T] float32, full scale is [-1, 1]
    sample_rate: int  # Hz


class SoundInfo(NamedTuple):
    """What a file's header says, once the file has proved to be whole."""

    sample_rate: int  # Hz
    channels: int
    frames: int  # samples of each channel
    format: str  # libsndfile's names: "WAV", "FLAC", ...
    subtype: str  # "PCM_16", "FLOAT", ...


def inspect(path: FilePath) -> SoundInfo:
    """Read a file's header and prove that the file is whole, without decoding it.

    Raises AudioError if it is not there, not a file, not sound, cut short or without a sample.
    """
    with open_sound(path) as file:
        return _info(file)


def read(
    path: FilePath, *, start: int = 0, frames: int | None = None, per_channel: bool = False
) -> Sound:
    """Read a file, or `frames` samples of it from sample `start` on, as float32 [C, T].

    More than two channels are refused unless `per_channel` says that each will be treated alone.
    Raises AudioError as `inspect` does, and for NaN, Inf and a part that the file does not have.
    """
    with open_sound(path) as file:
        info = _info(file)
        expect_channels(path, info.channels, per_channel)
        count = info.frames - start if frames is None else frames
        return Sound(next_samples(file, path, start, count, seek=start > 0), info.sample_rate)


def read_blocks(path: FilePath, frames: int, *, per_channel: bool = False) -> Iterator[Tensor]:
    """Read a file of any length as blocks [C, T] of `frames` samples; the last may be shorter.

    Raises AudioError as `read` does, at the block where the fault is.
    """
    with open_sound(path) as file:
        info = _info(file)
        expect_channels(path, info.channels, per_channel)
        for start in range(0, info.frames, frames):
            yield next_samples(file, path, start, min(frames, info.frames - start))


def write(
    path: FilePath,
    samples: Tensor,
    sample_rate: int,
    *,
    subtype: str | None = None,
    force: bool = False,
) -> int:
    """Write samples [C, T] to a file of the kind that its suffix names; return how many clipped.

    `subtype` is libsndfile's name of the coding ("PCM_16", "PCM_24", "FLOAT", ...), 24 bit by
    default; all but FLOAT and DOUBLE clip at [-1, 1]. Raises OutputError if the file exists (unless
    `force`), cannot be written, or the samples are not finite.
    """
    with BlockWriter(path, sample_rate, len(samples), subtype=subtype, force=force) as writer:
        writer.write(samples)
    return writer.clipped


class BlockWriter:
    """Write a file of any length block by block; it appears under its name when all is well."""

    def __init__(
        self,
        path: FilePath,
        sample_rate: int,
        channels: int,
        *,
        subtype: str | None = None,
        force: bool = False,
    ) -> None:
        self.path = Path(path)
        self.clipped = 0  # samples beyond full scale so far
        self.frames = 0  # samples of each channel so far
        suffix = self.path.suffix.lower()
        if suffix not in FORMATS:
            raise OutputError(
                f"{shown(path)}: sound is written as {', '.join(FORMATS)}, not as '{suffix}'"
            )
        expect_free(self.path, force=force)
        self.format, default = FORMATS[suffix]
        self.subtype = subtype or default
        known = soundfile.available_subtypes(self.format)
        if self.subtype not in known:
            hint = did_you_mean(self.subtype, known)
            raise OutputError(f"{suffix} holds no coding named '{self.subtype}'{hint}")
        self.sample_rate, self.channels = sample_rate, channels
        self._cleanup = ExitStack()

    def write(self, samples: Tensor) -> None:
        """Append samples [C, T]."""
        block = samples.detach().to("cpu", torch.float32).numpy()  # [C, T]
        if block.ndim != 2 or len(block) != self.channels:
            raise OutputError(
                f"{shown(self.path)} has {self.channels} channel(s), "
                f"got samples of shape {tuple(block.shape)}"
            )
        if not np.isfinite(block).all():
            raise OutputError(f"{shown(self.path)}: the samples are not finite; nothing is written")
        if self.subtype not in ("FLOAT", "DOUBLE"):
            self.clipped += int((np.abs(block) > 1).sum())
            block = block.clip(-1, 1)
        self.frames += block.shape[1]
        if self.format == "WAV" and self.frames * len(block) * self._width > WAV_LIMIT:
            raise OutputError(
                f"{shown(self.path)} passes 4 GiB, the limit of a WAV; use .flac or .rf64"
            )
        try:
            for first in range(0, block.shape[1], WRITE_LIMIT):
                self._file.write(block.T[first : first + WRITE_LIMIT])
        except (soundfile.SoundFileError, OSError) as error:
            raise OutputError(f"cannot write {shown(self.path)}: {reason_of(error)}") from None

    @property
    def _width(self) -> int:
        """Bytes of one sample in a WAV."""
        return {"DOUBLE": 8, "FLOAT": 4, "PCM_32": 4, "PCM_24": 3, "PCM_16": 2}.get(self.subtype, 1)

    def __enter__(self) -> BlockWriter:
        part = self._cleanup.enter_context(replacing(self.path))
        try:
            self._file = soundfile.SoundFile(
                for_libsndfile(part),
                "w",
                self.sample_rate,
                self.channels,
                self.subtype,
                format=self.format,
            )
        except (soundfile.SoundFileError, OSError, TypeError) as error:
            self._cleanup.__exit__(type(error), error, None)
            raise OutputError(
                f"cannot write {shown(self.path)} as {self.format}/{self.subtype} at "
                f"{self.sample_rate} Hz with {self.channels} channel(s): {reason_of(error)}; "
                ".wav and .flac hold any rate"
            ) from None
        self._cleanup.callback(self._file.close)  # before the file takes its name
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cleanup.__exit__(kind, error, trace)


def to_channels(samples: Tensor, channels: int) -> Tensor:
    """Bring samples [C, T] to this many channels: mono is copied, several become mono by their mean.

    Raises AudioError for any other change: there is no right way from stereo to five.
    """
    if len(samples) == channels:
        return samples
    if len(samples) == 1:
        return samples.expand(channels, -1)
    if channels == 1:
        return samples.mean(dim=0, keepdim=True)
    raise AudioError(f"{len(samples)} channels cannot be made {channels}; 1 can be made any number")


def expect_channels(path: FilePath, channels: int, per_channel: bool = False) -> None:
    """Raise AudioError for more than two channels, unless each is to be treated alone."""
    if channels > 2 and not per_channel:
        raise UnusableFileError(
            "too many channels",
            f"{shown(path)} has {channels} channels; one or two are understood, "
            "--per-channel treats each of them alone",
        )


def expect_free(path: Path, *, force: bool) -> None:
    """Raise OutputError if the name is taken (unless `force`) or its folder is not there."""
    if path.exists() and not force:
        raise OutputError(f"{shown(path)} exists; --force replaces it")
    if not path.parent.is_dir():
        raise OutputError(f"there is no folder {shown(path.parent)} to write {shown(path.name)} in")


def next_samples(
    file: soundfile.SoundFile, path: FilePath, start: int, count: int, *, seek: bool = False
) -> Tensor:
    """Decode samples start ... start + count - 1 as [C, T] and prove that they are all there."""
    if start < 0 or count < 1 or start + count > file.frames:
        raise AudioError(
            f"{shown(path)} has samples 0 to {file.frames - 1}, "
            f"{count} from sample {start} on were asked for"
        )
    try:
        if seek:  # reading on must not: in a damaged Ogg that would jump over the hole
            file.seek(start)
        block = file.read(count, dtype="float32", always_2d=True)  # [T, C]
    except (soundfile.SoundFileError, OSError) as error:
        raise UnusableFileError(
            "truncated", f"{shown(path)} is damaged or cut short: {reason_of(error)}"
        ) from None
    if len(block) != count:
        raise UnusableFileError(
            "truncated",
            f"{shown(path)} is truncated: it declares {file.frames} samples and decoding ended at "
            f"{start + len(block)}; copy or export it again",
        )
    if not np.isfinite(block).all():
        at, channel = np.argwhere(~np.isfinite(block))[0]
        raise UnusableFileError(
            "not finite",
            f"{shown(path)} holds {block[at, channel]} at {(start + at) / file.samplerate:.3f} s "
            f"(sample {start + at}, channel {channel}); repair or leave out the file",
        )
    return torch.from_numpy(np.ascontiguousarray(block.T))


def _info(file: soundfile.SoundFile) -> SoundInfo:
    return SoundInfo(file.samplerate, file.channels, file.frames, file.format, file.subtype)
