"""The manifest of a folder: one line a file with what it is, which side it is on, or why it is not used.

A file's side follows from the hash of its decoded sound alone, so it stays where it is when others come and
go, and copies of one sound stand on one side. With few sounds that would leave a side bare: then the last
tenth of every file is validation.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from audiovae.audio.opening import FilePath, Verdict, shown
from audiovae.errors import DataError, OutputError
from audiovae.paths import replacing

FORMAT = 1
FEW = 20  # usable sounds below which every file is split in time
VALID_SHARE = 0.1
Split = Literal["train", "valid", "both", ""]
Rule = Literal["hash", "last tenth", "folder"]
RULES: dict[Rule, str] = {
    "hash": "about a tenth of the sounds, chosen by the hash of their samples, are validation",
    "last tenth": "too few sounds to set some aside: the last tenth of each file is validation",
    "folder": "the validation files are those of the folder that was named",
}


class Entry(NamedTuple):
    """One file and its verdict; `split` is empty and `reason` says why if it is not used."""

    path: str  # below the folder; bytes that are not UTF-8 as surrogates (os.fsdecode)
    duration_seconds: float
    sample_rate: int  # Hz
    channels: int
    frames: int  # samples of each channel
    peak: float  # the largest absolute sample
    pcm_sha256: str  # of the decoded sound, as interleaved little-endian float32
    split: Split
    verdict: Verdict
    reason: str


class Manifest(NamedTuple):
    """What a scan found."""

    folder: str
    valid_folder: str  # where files of split "valid" lie under the rule "folder", else empty
    rule: Rule
    entries: tuple[Entry, ...]

    @property
    def usable(self) -> list[Entry]:
        """The files that are trained or validated on."""
        return [entry for entry in self.entries if entry.verdict == "ok"]

    @property
    def left_out(self) -> list[Entry]:
        """The files that are not used; each says why."""
        return [entry for entry in self.entries if entry.verdict != "ok"]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all that crops depend on; the place of the folder is no part of it."""
        facts = [(e.path, e.pcm_sha256, e.frames, e.sample_rate, e.split) for e in self.usable]
        return hashlib.sha256(json.dumps([self.rule, facts]).encode()).hexdigest()

    def full_path(self, entry: Entry) -> str:
        """Where an entry's file is."""
        named = self.rule == "folder" and entry.split == "valid"
        return os.path.join(self.valid_folder if named else self.folder, entry.path)

    def describe(self) -> str:
        """One line: how many files are used, how long they are, why others are not."""
        usable = self.usable
        minutes = sum(entry.duration_seconds for entry in usable) / 60
        counts: Counter[str] = Counter(entry.verdict for entry in self.left_out)
        left_out = ", ".join(f"{n} {verdict}" for verdict, n in sorted(counts.items()))
        return (
            f"{shown(self.folder)}: {len(usable)} of {len(self.entries)} files usable, "
            f"{minutes:.1f} minutes; {RULES[self.rule]}"
            + (f"; left out: {left_out}" * bool(counts))
        )


def assign_splits(entries: Iterable[Entry]) -> tuple[Rule, tuple[Entry, ...]]:
    """Put every usable file on its side, and say by which rule."""
    entries = tuple(entries)
    sides = {e.pcm_sha256: side_of(e.pcm_sha256) for e in entries if e.verdict == "ok"}
    by_hash = len(sides) >= FEW and len(set(sides.values())) == 2
    split = [
        entry._replace(split=sides[entry.pcm_sha256] if by_hash else "both")
        if entry.verdict == "ok"
        else entry
        for entry in entries
    ]
    return ("hash" if by_hash else "last tenth"), tuple(split)


def side_of(pcm_sha256: str) -> Split:
    """The side of a sound, from the first 32 bits of its hash."""
    return "valid" if int(pcm_sha256[:8], 16) < VALID_SHARE * 2**32 else "train"


def name_valid(train: Iterable[Entry], valid: Iterable[Entry]) -> tuple[Entry, ...]:
    """Join two folders into one list; a sound that is in both is not trained on."""
    valid = tuple(valid)
    held_out = {e.pcm_sha256: e.path for e in valid if e.verdict == "ok"}
    joined: list[Entry] = []
    for entry in train:
        if entry.verdict != "ok":
            joined.append(entry)
        elif twin := held_out.get(entry.pcm_sha256):
            reason = f"the same sound is in the validation folder: {shown(twin)}"
            joined.append(entry._replace(verdict="duplicate", reason=reason))
        else:
            joined.append(entry._replace(split="train"))
    joined += [e._replace(split="valid") if e.verdict == "ok" else e for e in valid]
    return tuple(joined)


def expect_usable(manifest: Manifest) -> None:
    """Raise DataError unless there is something to train on and something to validate on."""
    if not manifest.entries:
        raise DataError(f"{shown(manifest.folder)} holds no files; wav, flac, ogg, mp3 are wanted")
    sides = {entry.split for entry in manifest.usable}
    if not sides:
        first = manifest.entries[0]
        raise DataError(
            f"none of the {len(manifest.entries)} files in {shown(manifest.folder)} can be used; "
            f"{shown(first.path)}: {first.reason}"
        )
    for side in ("train", "valid"):
        if side not in sides and "both" not in sides:
            where = manifest.valid_folder if side == "valid" else manifest.folder
            raise DataError(f"no file in {shown(where)} is left for the side '{side}'")


def write_manifest(manifest: Manifest, path: FilePath) -> None:
    """Write a header line and one line a file as JSON; the same folder gives the same bytes."""
    header = {
        "format": FORMAT,
        "folder": manifest.folder,
        "valid_folder": manifest.valid_folder,
        "files": len(manifest.entries),
        "usable": len(manifest.usable),
        "split": manifest.rule,
        "split_means": RULES[manifest.rule],
        "fingerprint": manifest.fingerprint,
    }
    rows = [header, *(entry._asdict() for entry in manifest.entries)]
    try:
        with replacing(Path(path)) as part:
            part.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="ascii")
    except OSError as error:
        raise OutputError(f"cannot write {shown(path)}: {error.strerror}") from None


def read_manifest(path: FilePath) -> Manifest:
    """Read what `write_manifest` wrote.  Raises DataError if it is not that."""
    try:
        lines = Path(path).read_text(encoding="ascii").splitlines()
        header, *rows = [json.loads(line) for line in lines]
        if header["format"] != FORMAT:
            raise DataError(f"{shown(path)} has format {header['format']}, {FORMAT} is understood")
        entries = tuple(Entry(**row) for row in rows)
        return Manifest(header["folder"], header["valid_folder"], header["split"], entries)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{shown(path)} is not a manifest of audiovae: {error}") from None
