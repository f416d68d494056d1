"""The data set that pip brings along: single notes of the General MIDI programs, with their labels.

Every program of a range times every semitone of a range times a few velocities, rendered once from a
SoundFont into the cache folder (`data.soundfont` says how and at which level). A hash of (program, pitch)
says which notes are held out, so no twin of another velocity stands on the other side, and a note keeps
its side when the ranges change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Annotated, Literal, NamedTuple, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from audiovae.data.augment import Augment, augment
from audiovae.data.base import Batch, DataSettings, crop_length, shape_json, stack
from audiovae.data.soundfont import RenderedNotes, Rendering, default_soundfont, rendered
from audiovae.errors import DataError
from audiovae.nn.noise import mix

FAMILIES = (  # General MIDI 1, table 1: eight programs each
    "piano",
    "chromatic percussion",
    "organ",
    "guitar",
    "bass",
    "strings",
    "ensemble",
    "brass",
    "reed",
    "pipe",
    "synth lead",
    "synth pad",
    "synth effects",
    "ethnic",
    "percussive",
    "sound effects",
)
NOTES = 0x6E6F7465  # sets these draws apart from others that are seeded by (seed, step, item)
LEAD_SECONDS = 0.1  # the most silence before a note: no frame always holds the attack

Midi = Annotated[int, Field(ge=0, le=127)]
Velocity = Annotated[int, Field(ge=1, le=127)]


class NotesData(DataSettings):
    """Single notes of the General MIDI programs, rendered from a SoundFont.

    The defaults are 11,736 notes (5.2 h): 1.3 GB in the cache at 44.1 kHz stereo, 25 s to render.
    """

    kind: Literal["notes"] = "notes"
    soundfont: Path | None = None  # .sf2 or .sf3; None is the TimGM6mb.sf2 of pretty_midi
    programs: tuple[Midi, Midi] = (0, 119)  # first and last, from 0; 120 to 127 are noises
    pitches: tuple[Midi, Midi] = (36, 84)  # first and last MIDI note: C2 to C6
    velocities: tuple[Velocity, ...] = Field((60, 110), min_length=1)
    hold_seconds: float = Field(1.25, gt=0, le=60)  # from note-on to note-off
    release_seconds: float = Field(0.5, ge=0, le=60)
    valid_share: float = Field(0.05, gt=0, le=0.5)  # of the (program, pitch) pairs
    valid_seconds: float = Field(1.5, gt=0, le=600)  # length of a validation crop
    valid_crops: int = Field(32, ge=1)  # at most; the other held-out notes are not used
    augment: Augment = Augment()

    @model_validator(mode="after")
    def _ranges_go_up(self) -> Self:
        for name in ("programs", "pitches"):
            first, last = getattr(self, name)
            if first > last:
                raise ValueError(f"{name} is first and last, got {first} after {last}")
        if len(set(self.velocities)) < len(self.velocities):
            raise ValueError(f"velocities holds one twice: {self.velocities}")
        return self


class Note(NamedTuple):
    """What a note is."""

    program: int  # General MIDI, from 0
    pitch: int  # MIDI note number; 60 is middle C
    velocity: int
    name: str  # of the program, in the SoundFont

    @property
    def family(self) -> str:
        """The General MIDI family, such as "guitar"."""
        return FAMILIES[self.program // 8]

    @property
    def pitch_name(self) -> str:
        """The pitch as musicians say it, such as "C4" for 60.

        >>> Note(0, 70, 100, "Piano").pitch_name
        'A#4'
        """
        names = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
        return f"{names[self.pitch % 12]}{self.pitch // 12 - 1}"


def open_notes(
    config: NotesData, *, sample_rate: int, channels: int, multiple_of: int = 1
) -> NotesDataset:
    """Return the notes at this rate and width, rendered into the cache first if they are not there.

    Raises MissingPackageError without tinysoundfont (or without pretty_midi, if no SoundFont is named),
    DataError if the SoundFont gives nothing to train on, OutputError if the cache is full.
    """
    if channels not in (1, 2):
        raise DataError(f"notes are mono or stereo, got channels={channels}")
    rendering = Rendering(
        programs=tuple(range(config.programs[0], config.programs[1] + 1)),
        pitches=tuple(range(config.pitches[0], config.pitches[1] + 1)),
        velocities=config.velocities,
        hold_seconds=config.hold_seconds,
        seconds=config.hold_seconds + config.release_seconds,
        sample_rate=sample_rate,
        channels=channels,
    )
    notes = rendered(config.soundfont or default_soundfont(), rendering)
    return NotesDataset(
        config,
        notes,
        length=crop_length(config.segment_seconds, sample_rate, multiple_of),
        valid_length=crop_length(config.valid_seconds, sample_rate, multiple_of),
    )


class NotesDataset:
    """Crops of rendered notes; labels are program, pitch, velocity and family, int64 [B] each."""

    def __init__(
        self, config: NotesData, notes: RenderedNotes, *, length: int, valid_length: int
    ) -> None:
        self.config = config
        self.notes = notes
        self.length, self.valid_length = length, valid_length  # T of a crop
        self.sample_rate: int = notes.about["settings"]["sample_rate"]
        self.channels: int = notes.about["settings"]["channels"]
        held_out = _held_out(notes.table, config.valid_share)
        self.train_rows = np.flatnonzero(~held_out)
        self.held_rows = np.flatnonzero(held_out)
        few = min(config.valid_crops, len(self.held_rows))  # evenly spread over the held-out notes
        self.valid_rows = self.held_rows[
            np.linspace(0, len(self.held_rows) - 1, few).round().astype(int)
        ]
        if len(self.train_rows) == 0:
            raise DataError(
                f"{len(notes.table)} note(s) of one program and pitch cannot be split; "
                "widen --data.programs or --data.pitches"
            )

    @property
    def fingerprint(self) -> str:
        """A hash of the rendered samples and of the settings that shape a crop."""
        shape = shape_json(self.config, {"soundfont"})
        text = f"{self.notes.about['sha256']} {shape} {self.sample_rate} {self.channels}"
        return hashlib.sha256(f"{text} {self.length} {self.valid_length}".encode()).hexdigest()

    @property
    def held_out(self) -> tuple[Note, ...]:
        """Every note that no training batch contains."""
        return tuple(self._note(int(row)) for row in self.held_rows)

    def sound(self, note: Note) -> Tensor:
        """The whole of one note, [C, T].  Raises DataError if the set does not have it."""
        table = self.notes.table
        wanted = (table["program"] == note.program) & (table["pitch"] == note.pitch)
        rows = np.flatnonzero(wanted & (table["velocity"] == note.velocity))
        if len(rows) == 0:
            raise DataError(
                f"program {note.program}, pitch {note.pitch}, velocity {note.velocity} is not in "
                f"this set: {self.describe()}"
            )
        return torch.from_numpy(self.notes.note(int(rows[0]), self.channels).copy())

    def train_batch(self, seed: int, step: int, items: range) -> Batch:
        """Random notes, augmented, that begin up to 0.1 s late or lose a part of their beginning."""
        return stack([self._train_item(Random(mix(NOTES, seed, step, item))) for item in items])

    def valid_batches(self, batch_size: int) -> Iterator[Batch]:
        """Held-out notes, each from its beginning."""
        rows = [int(row) for row in self.valid_rows]
        for first in range(0, len(rows), batch_size):
            yield stack(
                [self._crop(row, 0, self.valid_length) for row in rows[first : first + batch_size]]
            )

    def describe(self) -> str:
        """One line: how many notes of what, and how many are held out or were silent."""
        table = self.notes.table
        hours = float(table["frames"].sum()) / self.sample_rate / 3600
        return (
            f"{len(table):,} single notes ({hours:.2g} h) of {len(np.unique(table['program']))} "
            f"programs, pitches {table['pitch'].min()} to {table['pitch'].max()}, from "
            f"{self.notes.about['soundfont']}; {len(self.held_rows):,} held out by program and "
            f"pitch, {len(self.notes.about['silent'])} silent ones dropped"
        )

    def _train_item(self, rng: Random) -> Batch:
        row = int(self.train_rows[rng.randrange(len(self.train_rows))])
        lead = round(LEAD_SECONDS * self.sample_rate)
        spare = max(0, int(self.notes.table[row]["frames"]) - self.length)
        crop = self._crop(row, rng.randint(-lead, spare), self.length)
        return crop._replace(x=augment(crop.x[0], self.sample_rate, self.config.augment, rng)[None])

    def _crop(self, row: int, start: int, length: int) -> Batch:
        """The samples [start, start + length) of a note, with silence where it is not sounding."""
        sound = self.notes.note(row, self.channels)
        x = np.zeros((self.channels, length), np.float32)
        part = sound[:, max(0, start) : start + length]
        late = max(0, -start)
        x[:, late : late + part.shape[1]] = part
        note = self._note(row)
        numbers = (*note[:3], note.program // 8)
        names = ("program", "pitch", "velocity", "family")
        labels = {n: torch.tensor([v]) for n, v in zip(names, numbers, strict=True)}
        source = f"notes/{note.name}/{note.pitch}/{note.velocity}@{start / self.sample_rate:.3f}"
        return Batch(torch.from_numpy(x)[None], None, labels, (source,))

    def _note(self, row: int) -> Note:
        program, pitch, velocity = (
            int(self.notes.table[row][k]) for k in ("program", "pitch", "velocity")
        )
        return Note(program, pitch, velocity, self.notes.about["names"][str(program)])


def _held_out(table: np.ndarray, share: float) -> np.ndarray:
    """True for the notes whose (program, pitch) hashes into the held-out share; at least one pair."""
    pairs: Sequence[tuple[int, int]] = list(
        zip(table["program"].tolist(), table["pitch"].tolist(), strict=True)
    )
    places = {pair: _place(*pair) for pair in pairs}
    limit = max(share, min(places.values()))
    return np.array([places[pair] <= limit for pair in pairs])


def _place(program: int, pitch: int) -> float:
    """A fixed number in [0, 1) for a program and a pitch."""
    digest = hashlib.sha256(f"{program} {pitch}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
