"""A folder of recordings as a data set: random crops to train on, fixed ones to validate on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from random import Random
from typing import Literal

import torch
from pydantic import Field

from audiovae.audio.levels import amplitude, rms
from audiovae.audio.opening import shown
from audiovae.audio.pool import SoundPool
from audiovae.data.augment import Augment, augment
from audiovae.data.base import Batch, DataSettings, crop_length, shape_json, stack
from audiovae.data.crops import Position, Section, Timeline, cut, decode_mp3s
from audiovae.data.manifest import VALID_SHARE, Entry, Manifest, expect_usable
from audiovae.data.scan import MINIMUM_SECONDS, SILENCE_DB, scan_folder
from audiovae.nn.noise import mix

CROPS = 0x63726F70  # sets these draws apart from others that are seeded by (seed, step, item)


class FolderData(DataSettings):
    """A folder with sound files in it, at any depth."""

    kind: Literal["folder"] = "folder"
    path: str  # the folder
    valid: str | None = None  # a folder to validate on, instead of a part of the first
    minimum_seconds: float = Field(MINIMUM_SECONDS, ge=0)  # shorter files are not used
    silence_db: float = Field(SILENCE_DB, le=0)  # crops with a lower RMS are drawn again
    silent_draws: int = Field(8, ge=1)  # at most; then the loudest of them is taken
    valid_seconds: float = Field(1.5, gt=0, le=600)  # length of a validation crop
    valid_crops: int = Field(32, ge=1)  # at most
    augment: Augment = Augment()


def open_folder(
    settings: FolderData, *, sample_rate: int, channels: int, multiple_of: int = 1
) -> FolderDataset:
    """Scan the folder (what is unchanged since the last time is not read again) and open it.

    Raises DataError if no file in it can be trained on, or none is left to validate on.
    """
    manifest = scan_folder(
        settings.path,
        valid=settings.valid,
        minimum_seconds=settings.minimum_seconds,
        silence_db=settings.silence_db,
    )
    return FolderDataset(
        settings,
        sample_rate=sample_rate,
        channels=channels,
        multiple_of=multiple_of,
        manifest=manifest,
    )


class FolderDataset:
    """Crops of the files of a folder; a crop depends on (seed, step, item) and on nothing else."""

    def __init__(
        self,
        settings: FolderData,
        *,
        sample_rate: int,
        channels: int,
        multiple_of: int = 1,
        manifest: Manifest,
    ) -> None:
        self.settings, self.sample_rate, self.channels = settings, sample_rate, channels
        self.length = crop_length(settings.segment_seconds, sample_rate, multiple_of)  # T
        self.valid_length = crop_length(settings.valid_seconds, sample_rate, multiple_of)
        self.manifest = manifest
        self.files = SoundPool()
        expect_usable(self.manifest)
        self.train = Timeline(sections(self.manifest, "train"))
        self.valid = Timeline(sections(self.manifest, "valid"))
        decode_mp3s([*self.train.sections, *self.valid.sections])

    @property
    def fingerprint(self) -> str:
        """A hash of the manifest and of the settings that shape a crop; folder names are no part."""
        shape = shape_json(self.settings, {"path", "valid"})
        facts = f"{self.manifest.fingerprint} {shape} {self.sample_rate} {self.channels}"
        return hashlib.sha256(f"{facts} {self.length} {self.valid_length}".encode()).hexdigest()

    def train_batch(self, seed: int, step: int, items: range) -> Batch:
        """The items of a step, augmented; x [B, C, T]."""
        return stack([self._item(Random(mix(CROPS, seed, step, item))) for item in items])

    def valid_batches(self, batch_size: int) -> Iterator[Batch]:
        """The validation crops, as they are, evenly over the validation files."""
        positions = self.valid.spread(
            self.settings.valid_crops, self.valid_length / self.sample_rate
        )
        for first in range(0, len(positions), batch_size):
            yield stack(
                [self._cut(at, self.valid_length) for at in positions[first : first + batch_size]]
            )

    def describe(self) -> str:
        """One line for people: how many files, how long, how they are split."""
        return self.manifest.describe()

    def _item(self, rng: Random) -> Batch:
        """Draw a crop, again while it is silent and draws are left, and augment the loudest."""
        seconds, floor = self.length / self.sample_rate, amplitude(self.settings.silence_db)
        best, loudest = None, -1.0
        for _ in range(self.settings.silent_draws):
            drawn = self._cut(self.train.at(rng.random(), rng.random(), seconds), self.length)
            if (level := rms(drawn.x)) > loudest:
                best, loudest = drawn, level
            if loudest >= floor:
                break
        assert best is not None
        x = augment(best.x[0], self.sample_rate, self.settings.augment, rng)
        return best._replace(x=x[None])

    def _cut(self, position: Position, length: int) -> Batch:
        """One crop as a batch of one."""
        x, sound = cut(position, length, self.sample_rate, self.channels, self.files)
        mask = None if sound == length else (torch.arange(length) < sound)[None]
        section = position.section
        source = f"{shown(section.path)}@{position.start / section.sample_rate:.3f}"
        return Batch(x[None], mask, {}, (source,))


def sections(manifest: Manifest, side: Literal["train", "valid"]) -> list[Section]:
    """The stretches of the usable files that belong to one side."""
    return [
        Section(manifest.full_path(entry), entry.pcm_sha256, entry.sample_rate, *part)
        for entry in manifest.usable
        if (part := _part(entry, side))
    ]


def _part(entry: Entry, side: Literal["train", "valid"]) -> tuple[int, int] | None:
    """The samples of a file that belong to a side: all, none, or under "both" a share of it."""
    if entry.split == side:
        return 0, entry.frames
    border = entry.frames - max(1, round(entry.frames * VALID_SHARE))
    if entry.split != "both" or border < 1:
        return None
    return (0, border) if side == "train" else (border, entry.frames)
