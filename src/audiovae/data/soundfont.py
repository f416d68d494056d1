"""Single notes rendered from a SoundFont, once, into a folder that is mapped into memory afterwards.

    samples.i16   every note's samples, one after the other, [frames, channels] of int16 each
    notes.npy     one row a note (`NOTE`): what it is and where its samples lie
    about.json    the settings, the programs' names, the notes that came out silent, the SHA-256 of the samples

Level: the velocities of one (program, pitch) share one gain that puts the loudest of them at a peak of
-3 dBFS, so a soft note stays softer than its loud twin and no pitch is lost in the noise of 16 bits.
What is equal is stored once: the two channels of most notes, and velocities that are one sound at two
levels. A note ends where it has decayed to -80 dB of its peak. With TimGM6mb the folder is then a third
of the plain samples.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from audiovae.audio.resample import resample
from audiovae.config import Config
from audiovae.errors import DataError, MissingPackageError, OutputError
from audiovae.paths import cache_folder
from audiovae.progress import progress

FORMAT = 1  # of the folder; a change of the rendering must raise it
NOTE = np.dtype(
    [
        ("program", "<i2"),  # General MIDI, from 0
        ("pitch", "<i2"),  # MIDI note number; 60 is middle C, 69 is 440 Hz
        ("velocity", "<i2"),  # 1 to 127
        ("channels", "<i2"),  # stored: 1 where both are equal
        ("gain", "<f4"),  # of the stored samples
        ("frames", "<i4"),
        ("start", "<i8"),  # of its samples in samples.i16, counted in int16 values
    ]
)
PEAK = 10 ** (-3 / 20)
SILENT = 1e-3  # a note whose peak stays below -60 dBFS before its gain
SAME = 1e-4  # of its peak: a difference that 16 bits do not hold apart after the gain
DECAYED = 1e-4  # of its peak: -80 dB
FADE_SECONDS = 0.05  # at the end, where a long release is cut
RENDER_RATE = 44_100  # the least: the renderer interpolates linearly and would alias below
STALE_SECONDS = 3600  # after which an unfinished folder counts as left behind


class Rendering(Config):
    """Everything that the samples of a rendered set depend on, beside the SoundFont's bytes."""

    programs: tuple[int, ...]
    pitches: tuple[int, ...]
    velocities: tuple[int, ...]
    hold_seconds: float  # from note-on to note-off
    seconds: float  # from note-on to the end of the release
    sample_rate: int
    channels: int


class RenderedNotes(NamedTuple):
    """A rendered set, mapped into memory."""

    table: np.ndarray  # [notes] of NOTE, without the silent ones
    samples: np.ndarray  # int16, all notes in a row
    about: dict[str, Any]  # names, silent, sha256, ...

    def note(self, row: int, channels: int) -> np.ndarray:
        """One note as float32 [channels, frames] in [-1, 1]."""
        note = self.table[row]
        start, size = int(note["start"]), int(note["frames"]) * int(note["channels"])
        stored = self.samples[start : start + size].reshape(-1, int(note["channels"]))
        sound = stored.T.astype(np.float32) * (note["gain"] / np.float32(32768))
        return np.broadcast_to(sound, (channels, sound.shape[1]))


def default_soundfont() -> Path:
    """Return TimGM6mb.sf2 (GPL-2, 6 MB), which the package pretty_midi carries.

    Raises MissingPackageError if pretty_midi is not installed.
    """
    spec = importlib.util.find_spec("pretty_midi")  # found, not imported: only its file is wanted
    if spec is None or spec.origin is None:
        raise MissingPackageError(
            "the default SoundFont comes with pretty_midi, which is not installed: "
            "run `pip install pretty_midi`, or name a SoundFont file with --data.soundfont"
        )
    return Path(spec.origin).with_name("TimGM6mb.sf2")


def rendered(soundfont: Path, settings: Rendering) -> RenderedNotes:
    """Return the notes of a SoundFont file (.sf2, .sf3), rendered now unless the cache has them.

    Raises DataError if the SoundFont cannot be read or has no note that sounds, MissingPackageError without
    tinysoundfont, OutputError if the cache folder is full.
    """
    if not soundfont.is_file():
        raise DataError(f"there is no SoundFont file {soundfont}; name an .sf2 or .sf3 file")
    folder = cache_folder("notes") / _key(soundfont, settings)
    if not _is_whole(folder):
        shutil.rmtree(folder, ignore_errors=True)
        _render_into(folder, soundfont, settings)
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    samples = np.memmap(folder / "samples.i16", dtype="<i2", mode="r")
    return RenderedNotes(np.load(folder / "notes.npy", allow_pickle=False), samples, about)


def _key(soundfont: Path, settings: Rendering) -> str:
    """A name for the set: equal for equal samples."""
    with soundfont.open("rb") as file:
        font = hashlib.file_digest(file, "sha256").hexdigest()
    text = json.dumps([FORMAT, _renderer_version(), font, settings.model_dump(mode="json")])
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _renderer_version() -> str:
    """The installed tinysoundfont.  Raises MissingPackageError without one."""
    try:
        return importlib.metadata.version("tinysoundfont")
    except importlib.metadata.PackageNotFoundError:
        raise MissingPackageError(
            "notes are rendered by tinysoundfont, which is not installed: "
            "run `pip install --no-deps tinysoundfont` "
            "(without --no-deps it wants PyAudio, which has to be compiled and is not needed)"
        ) from None


def _is_whole(folder: Path) -> bool:
    """Whether the cache has the set; a power cut may leave a file short."""
    try:
        about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        return bool((folder / "samples.i16").stat().st_size == 2 * about["values"])
    except (OSError, ValueError, KeyError):
        return False


def _render_into(folder: Path, soundfont: Path, settings: Rendering) -> None:
    """Render a set into a folder beside the one it belongs in, and rename it when it is whole."""
    _remove_stale(folder.parent)
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".unfinished-"))
    try:
        _render(unfinished, soundfont, settings)
        try:
            unfinished.rename(folder)
        except OSError:
            if not _is_whole(folder):  # else another process was first: same bytes
                raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise OutputError(
            f"cannot write the rendered notes to {folder.parent}: {error.strerror}; "
            + ("free some space, " if full else "")
            + "set AUDIOVAE_CACHE to another folder, or render fewer notes"
        ) from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _remove_stale(folder: Path) -> None:
    """Remove what a killed process left unfinished: up to a gigabyte each."""
    for left in folder.glob(".unfinished-*"):
        if time.time() - left.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(left, ignore_errors=True)


def _render(folder: Path, soundfont: Path, settings: Rendering) -> None:
    """Write samples.i16, notes.npy and about.json."""
    synth = _Synth(soundfont, settings)
    pairs = [(program, pitch) for program in settings.programs for pitch in settings.pitches]
    count = len(pairs) * len(settings.velocities)
    title = f"rendering {count:,} notes from {soundfont.name} (once)"
    table: list[tuple[float, ...]] = []
    silent: list[tuple[int, int, int]] = []
    digest, written = hashlib.sha256(), 0
    with (folder / "samples.i16").open("wb") as file:
        for program, pitch in progress(pairs, title, say=True):
            twins = [synth.play(program, pitch, velocity) for velocity in settings.velocities]
            silent += [
                (program, pitch, velocity)
                for velocity, sound in zip(settings.velocities, twins, strict=True)
                if _peak(sound) < SILENT
            ]
            for velocities, stored in _stored_once(settings.velocities, twins):
                frames, channels = stored.shape
                for velocity, gain in velocities:
                    table.append((program, pitch, velocity, channels, gain, frames, written))
                file.write(stored.data)
                digest.update(stored.data)
                written += stored.size
    if not table:
        raise DataError(f"no note of {soundfont} sounds in programs {settings.programs}")
    np.save(folder / "notes.npy", np.array(table, dtype=NOTE))
    about = {
        "format": FORMAT,
        "soundfont": soundfont.name,
        "settings": settings.model_dump(mode="json"),
        "names": {str(program): synth.name(program) for program in settings.programs},
        "silent": silent,
        "sha256": digest.hexdigest(),
        "values": written,
    }
    (folder / "about.json").write_text(json.dumps(about) + "\n", encoding="utf-8")


def _stored_once(
    velocities: Sequence[int], twins: Sequence[np.ndarray]
) -> Iterator[tuple[list[tuple[int, float]], np.ndarray]]:
    """Group the velocities of one note that are one sound at several levels.

    Gives ((velocity, gain) of each in the group, samples of int16 [frames, 1 or C]).
    """
    loudest = max(_peak(sound) for sound in twins)
    rest = [
        (v, sound) for v, sound in zip(velocities, twins, strict=True) if _peak(sound) >= SILENT
    ]
    while rest:
        kept = max((sound for _, sound in rest), key=_peak)
        peak = _peak(kept)
        equal = {
            v: _peak(sound) / peak
            for v, sound in rest
            if _peak(sound - kept * (_peak(sound) / peak)) < SAME * _peak(sound)
        }
        rest = [(v, sound) for v, sound in rest if v not in equal]
        # Stored at the full level and turned down on reading, so that a soft twin loses no bits.
        yield [(v, gain * peak / loudest) for v, gain in equal.items()], _packed(kept / peak * PEAK)


def _peak(sound: np.ndarray) -> float:
    """The largest magnitude of a sound."""
    return float(max(sound.max(), -sound.min()))


def _packed(sound: np.ndarray) -> np.ndarray:
    """[C, T] float -> int16 [frames, 1 or C], cut where it has decayed."""
    if len(sound) == 2 and np.array_equal(sound[0], sound[1]):
        sound = sound[:1]
    audible = np.flatnonzero(np.abs(sound).max(axis=0) > DECAYED * PEAK)
    scaled = np.rint(sound[:, : audible[-1] + 1].T * 32768)
    return np.ascontiguousarray(scaled, dtype="<i2")


class _Synth:
    """tinysoundfont, asked for one note at a time."""

    def __init__(self, soundfont: Path, settings: Rendering) -> None:
        import tinysoundfont

        self.settings = settings
        # Rendered at a whole multiple of the rate that is wanted, then decimated.
        self.multiple = -(-RENDER_RATE // settings.sample_rate)
        self.rate = self.multiple * settings.sample_rate
        self.synth = tinysoundfont.Synth(gain=0, samplerate=self.rate)
        try:
            self.font = self.synth.sfload(os.fspath(soundfont))
        except Exception as error:  # it raises a bare Exception
            raise DataError(f"{soundfont} is not a SoundFont that can be read: {error}") from None

    def name(self, program: int) -> str:
        """What the SoundFont calls a program."""
        return str(self.synth.sfpreset_name(self.font, 0, program)).strip()

    def play(self, program: int, pitch: int, velocity: int) -> np.ndarray:
        """One note, [C, T] float32 at the wanted rate."""
        self.synth.program_select(0, self.font, 0, program)
        self.synth.noteon(0, pitch, velocity)
        held = self._generate(self.settings.hold_seconds)
        self.synth.noteoff(0, pitch)
        released = self._generate(self.settings.seconds - self.settings.hold_seconds)
        self.synth.sounds_off(0)
        self._generate(2048 / self.rate)  # the fade of what was cut must not reach the next note
        sound = np.concatenate([held, released], axis=1)
        fade = min(round(FADE_SECONDS * self.rate), sound.shape[1])
        sound[:, sound.shape[1] - fade :] *= np.cos(np.linspace(0, np.pi / 2, fade)) ** 2
        if self.settings.channels == 1:
            sound = sound.mean(axis=0, keepdims=True)
        if self.multiple == 1:
            return sound
        low = resample(torch.from_numpy(sound), self.rate, self.settings.sample_rate)
        return low.numpy()

    def _generate(self, seconds: float) -> np.ndarray:
        """The next stretch of sound, [2, T] float32."""
        frames = round(seconds * self.rate)
        if frames == 0:
            return np.zeros((2, 0), np.float32)
        interleaved = np.frombuffer(bytes(self.synth.generate(frames)), np.float32)
        return interleaved.reshape(-1, 2).T.copy()
