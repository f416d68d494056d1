"""Walk a folder and listen to every file in it once.

What was found is remembered by (path, size, time of change), so a second scan only looks at what is new. The
thresholds are applied afterwards: they can change without a file being read again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from audiovae.audio.io import expect_channels, inspect, read_blocks
from audiovae.audio.levels import amplitude, peak
from audiovae.audio.opening import UnusableFileError, shown
from audiovae.data.manifest import Entry, Manifest, assign_splits, name_valid
from audiovae.errors import DataError
from audiovae.paths import cache_folder
from audiovae.progress import progress

BLOCK = 1 << 18  # samples decoded at once: 6 s at 44.1 kHz
MINIMUM_SECONDS = 0.1  # shorter files hold less than an onset
SILENCE_DB = -60.0  # a file whose peak stays below is silent
NOTHING = Entry("", 0.0, 0, 0, 0, 0.0, "", "", "ok", "")
KNOWN_FORMAT = 1  # of the remembered lines; another number forgets them


def scan_folder(
    folder: str,
    *,
    valid: str | None = None,
    minimum_seconds: float = MINIMUM_SECONDS,
    silence_db: float = SILENCE_DB,
    quiet: bool = False,
) -> Manifest:
    """Give every file below a folder (and below `valid`) its verdict and its side.

    Raises DataError if a folder is not there; a file that cannot be used never raises.
    """
    judged = []
    for place in [folder] if valid is None else [folder, valid]:
        found = listen(place, quiet=quiet)
        judged.append([judge(entry, minimum_seconds, silence_db) for entry in found])
    if valid is None:
        rule, entries = assign_splits(judged[0])
        return Manifest(folder, "", rule, entries)
    return Manifest(folder, valid, "folder", name_valid(*judged))


def judge(entry: Entry, minimum_seconds: float, silence_db: float) -> Entry:
    """Apply the thresholds to a file that could be read."""
    if entry.verdict != "ok":
        return entry
    if entry.duration_seconds < minimum_seconds:
        reason = f"lasts {entry.duration_seconds:.4f} s; at least {minimum_seconds:g} s are needed"
        return entry._replace(verdict="too short", reason=reason)
    if entry.peak < amplitude(silence_db):
        reason = f"never louder than {silence_db:g} dB of full scale (peak {entry.peak:.1e})"
        return entry._replace(verdict="silent", reason=reason)
    return entry


def listen(folder: str, *, quiet: bool = False) -> list[Entry]:
    """Examine every file below a folder, in order of their names, remembering what was found."""
    if not os.path.isdir(folder):
        raise DataError(f"there is no folder {shown(folder)}")
    memory = _Memory(folder)
    entries = {path: memory.recall(path) for path in sorted(walk(folder), key=os.fsencode)}
    new = [path for path, entry in entries.items() if entry is None]
    workers = min(8, os.cpu_count() or 1)  # decoding and hashing let go of the interpreter
    with memory, ThreadPoolExecutor(workers) as pool:
        found = pool.map(memory.learn, new)
        if new:
            title = f"scan {shown(folder)}"
            entries.update(
                zip(new, progress(found, title, total=len(new), quiet=quiet), strict=True)
            )
    return [entry for entry in entries.values() if entry]


def walk(folder: str) -> Iterator[str]:
    """The path below `folder` of everything in it that is not a folder, and of closed folders.

    Links are followed; a folder that was seen under another name is not entered again, and none
    that `folder` itself lies in.
    """
    above = Path(os.path.realpath(folder)).parents
    seen = {(at.st_dev, at.st_ino) for at in map(os.stat, above)}
    waiting = [""]
    while waiting:
        below = waiting.pop()
        try:
            at = os.stat(os.path.join(folder, below))
            if (at.st_dev, at.st_ino) in seen:
                continue
            seen.add((at.st_dev, at.st_ino))
            names = sorted(os.listdir(os.path.join(folder, below)), key=os.fsencode)
        except OSError:
            yield below
            continue
        for name in names:
            path = f"{below}/{name}" if below else name  # the same on every platform
            if os.path.isdir(os.path.join(folder, path)):
                waiting.append(path)
            else:
                yield path


def examine(folder: str, path: str) -> Entry:
    """Decode a file from start to end: its length, its peak, its hash, or why it cannot be used."""
    full = os.path.join(folder, path)
    entry = NOTHING._replace(path=path)
    if os.path.isdir(full):  # `walk` could not enter it
        return entry._replace(verdict="unreadable", reason="the folder cannot be opened")
    try:
        info = inspect(full)
        entry = entry._replace(
            duration_seconds=round(info.frames / info.sample_rate, 6),
            sample_rate=info.sample_rate,
            channels=info.channels,
            frames=info.frames,
        )
        expect_channels(full, info.channels)
        loudest, pcm = 0.0, hashlib.sha256()
        for block in read_blocks(full, BLOCK):
            loudest = max(loudest, peak(block))
            pcm.update(block.T.contiguous().numpy().astype("<f4", copy=False).tobytes())
        return entry._replace(peak=loudest, pcm_sha256=pcm.hexdigest())
    except UnusableFileError as error:
        return entry._replace(verdict=error.verdict, reason=str(error).replace(shown(full), "it"))


class _Memory:
    """What earlier scans of a folder found, in one file of the cache; lines are added as they come."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        name = hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:16]
        self.path = cache_folder("scans") / f"{name}.jsonl"
        self.known: dict[str, tuple[list[int], Entry]] = {}
        for line in self._lines():
            self.known[line["entry"]["path"]] = (line["stamp"], Entry(**line["entry"]))

    def recall(self, path: str) -> Entry | None:
        """What is known of a file, if it did not change since."""
        stamp, entry = self.known.get(path, (None, None))
        return entry if stamp is not None and stamp == self._stamp(path) else None

    def learn(self, path: str) -> Entry:
        """Examine a file and remember what was found."""
        stamp = self._stamp(path)  # taken before: a file that changes meanwhile is read again
        entry = examine(self.folder, path)
        if entry.verdict not in ("unreadable", "not a file"):  # rights change without a new time
            self._append({"format": KNOWN_FORMAT, "stamp": stamp, "entry": entry._asdict()})
        return entry

    def _stamp(self, path: str) -> list[int] | None:
        """Size and time of change of a file; None if it is gone."""
        try:
            at = os.stat(os.path.join(self.folder, path))
        except OSError:
            return None
        return [at.st_size, at.st_mtime_ns]

    def __enter__(self) -> _Memory:
        self._file = open(self.path, "ab")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _append(self, line: dict[str, Any]) -> None:
        """One write a line: a scan that is killed leaves whole lines and at most one torn end."""
        self._file.write(b"\n" + json.dumps(line).encode("ascii"))
        self._file.flush()

    def _lines(self) -> Iterable[dict[str, Any]]:
        try:
            lines = self.path.read_bytes().splitlines()
        except OSError:
            return
        for line in lines:
            try:
                parsed = json.loads(line)
                if parsed["format"] == KNOWN_FORMAT:
                    yield parsed
            except (ValueError, TypeError, KeyError):
                continue  # torn by a kill: that file is read again
