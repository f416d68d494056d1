"""Cut pieces out of files by seeking, at the rate and with the channels that are wanted.

A piece at another rate is read with more on both sides than the resampling filter reaches, so that it equals
the same piece of the whole file resampled. An MP3 cannot be entered at an exact sample: it is decoded once, into the cache.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from audiovae.audio.io import BlockWriter, inspect, read_blocks, to_channels
from audiovae.audio.pool import SoundPool
from audiovae.audio.resample import filter_reach, resample, resampled_length
from audiovae.paths import cache_folder
from audiovae.progress import progress

BLOCK = 1 << 18  # samples decoded at once


class Section(NamedTuple):
    """A stretch of a file that crops may come from."""

    path: str
    pcm_sha256: str
    sample_rate: int  # Hz
    start: int  # samples
    stop: int  # samples

    @property
    def seconds(self) -> float:
        """Its length."""
        return (self.stop - self.start) / self.sample_rate


class Position(NamedTuple):
    """Where a crop starts."""

    section: Section
    start: int  # samples of the file


class Timeline:
    """Sections end to end, so that a number in [0, 1) is a moment and long files come more often."""

    def __init__(self, sections: Sequence[Section]) -> None:
        self.sections = tuple(sections)
        self.ends = list(itertools.accumulate(section.seconds for section in self.sections))

    @property
    def seconds(self) -> float:
        """All sections together."""
        return self.ends[-1] if self.ends else 0.0

    def at(self, u: float, v: float, seconds: float) -> Position:
        """The section at the share u of the time, and in it the crop at the share v of its starts.

        A section shorter than `seconds` has one start, its own.
        """
        place = bisect.bisect_right(self.ends, u * self.seconds)
        section = self.sections[min(place, len(self.sections) - 1)]
        room = section.stop - section.start - math.ceil(seconds * section.sample_rate)
        return Position(section, section.start + math.floor(v * (max(0, room) + 1)))

    def spread(self, count: int, seconds: float) -> list[Position]:
        """At most `count` of the crops that cover every section side by side, evenly chosen."""
        crops = [max(1, math.ceil(section.seconds / seconds)) for section in self.sections]
        ends = list(itertools.accumulate(crops))
        chosen = min(count, ends[-1])
        positions = []
        for number in ((2 * k + 1) * ends[-1] // (2 * chosen) for k in range(chosen)):
            place = bisect.bisect_right(ends, number)
            section, nth = self.sections[place], number - (ends[place] - crops[place])
            last = section.stop - math.ceil(seconds * section.sample_rate)
            start = section.start + int(nth * seconds * section.sample_rate)
            positions.append(Position(section, max(section.start, min(start, last))))
        return positions


def cut(
    position: Position, length: int, sample_rate: int, channels: int, files: SoundPool
) -> tuple[Tensor, int]:
    """Read a crop: x [channels, length] at sample_rate, and how many of its samples are sound.

    Nothing outside the section is read; past its end the crop is padded with zeros.
    """
    section, start = position
    wanted = math.ceil(length * section.sample_rate / sample_rate)
    lead, reach = _lead(position, sample_rate)
    stop = min(start + wanted + reach, section.stop)
    x = files.read(_seekable(section), start - lead, stop - start + lead)
    y = resample(x, section.sample_rate, sample_rate)
    left_out = resampled_length(lead, section.sample_rate, sample_rate) if lead else 0
    y = to_channels(y[:, left_out : left_out + length], channels)
    return torch.nn.functional.pad(y, (0, length - y.shape[-1])), y.shape[-1]


def _lead(position: Position, sample_rate: int) -> tuple[int, int]:
    """Samples to read before a crop and after it.

    Those before are a whole number at both rates, or the section starts there; then the crop comes
    by up to half a sample early or late.
    """
    section, start = position
    if section.sample_rate == sample_rate:
        return 0, 0
    reach = filter_reach(section.sample_rate, sample_rate)
    step = section.sample_rate // math.gcd(section.sample_rate, sample_rate)
    return min(-(-reach // step) * step, start - section.start), reach


def decode_mp3s(sections: Iterable[Section]) -> None:
    """Decode into the cache what cannot be entered at an exact sample, 21 MB a stereo minute at 44.1 kHz.

    At once, with a bar, so that no step of a training waits for it.
    """
    copies = {_copy_of(section): section for section in sections if _is_mp3(section)}
    missing = [(copy, section) for copy, section in copies.items() if not copy.exists()]
    if missing:
        for copy, section in progress(missing, f"decode MP3s into {cache_folder('decoded')}"):
            _decode(section, copy)


def _decode(section: Section, copy: Path) -> None:
    """Write the sound of a section's whole file to a file that can be entered anywhere."""
    info = inspect(section.path)
    with BlockWriter(copy, info.sample_rate, info.channels, subtype="FLOAT", force=True) as writer:
        for block in read_blocks(section.path, BLOCK):
            writer.write(block)


def _seekable(section: Section) -> str:
    """The file itself, or the decoded copy in the cache if it is an MP3."""
    if not _is_mp3(section):
        return section.path
    copy = _copy_of(section)
    if not copy.exists():  # the cache was emptied; no bar, beside that of a training
        _decode(section, copy)
    return str(copy)


def _is_mp3(section: Section) -> bool:
    return section.path.lower().endswith(".mp3")


def _copy_of(section: Section) -> Path:
    return cache_folder("decoded") / f"{section.pcm_sha256}.rf64"
