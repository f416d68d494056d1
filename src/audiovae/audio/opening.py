"""Which files libsndfile gets to see: regular, readable, complete ones of a known format.

A file's kind is asked before it is opened, as a pipe would block for ever; its first bytes are looked at
before a decoder is, and its container is measured (`container`).
"""

from __future__ import annotations

import os
import stat
from typing import BinaryIO, Literal

import soundfile

from audiovae.audio.container import has_no_length, looks_like_sound, missing_bytes
from audiovae.errors import AudioError

FilePath = str | os.PathLike[str]
Verdict = Literal[
    "ok", "unreadable", "not a file", "empty", "not audio", "truncated", "no length", "not finite",
    "too many channels", "too short", "silent", "duplicate",
]  # fmt: skip
RATES = (1_000, 384_000)  # Hz; a header that says more is forged or broken


class UnusableFileError(AudioError):
    """A sound file that cannot be used; `verdict` is the short form of its message."""

    def __init__(self, verdict: Verdict, message: str) -> None:
        super().__init__(message)
        self.verdict = verdict


def shown(path: FilePath) -> str:
    """A path as it can be printed anywhere: bytes that are not UTF-8 and line ends are escaped."""
    letters = os.fspath(path)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in letters)


def open_sound(path: FilePath) -> soundfile.SoundFile:
    """Open a regular, readable, complete file of a known format; the decoder sees no other."""
    name = shown(path)
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            raise UnusableFileError(
                "not a file", f"{name} is {_kind(mode)}; a file of sound is needed"
            )
        with open(path, "rb") as raw:
            fault = _fault(raw)
    except FileNotFoundError:
        raise UnusableFileError("unreadable", f"there is no file {name}") from None
    except OSError as error:
        raise UnusableFileError("unreadable", f"cannot read {name}: {error.strerror}") from None
    if fault:
        raise UnusableFileError(fault[0], f"{name} {fault[1]}")
    return _decoder(path)


def _fault(raw: BinaryIO) -> tuple[Verdict, str] | None:
    """What a look at the bytes of a file finds wrong with it."""
    head = raw.read(12)
    if not head:
        return "empty", "is empty (0 bytes)"
    if not looks_like_sound(head):
        return "not audio", "is not sound; wav, flac, ogg, opus, mp3, aiff are read"
    if cut := missing_bytes(raw):
        return "truncated", (
            f"is truncated: it declares {cut.declared} bytes or more and {cut.present} are there; "
            "copy or export it again"
        )
    if has_no_length(raw):
        return "no length", (
            "is an MP3 of varying bit rate that does not declare its length, so a part of it would "
            "be lost; convert it, for example to flac"
        )
    return None


def _decoder(path: FilePath) -> soundfile.SoundFile:
    """Let libsndfile open the file, and refuse what it makes of a header without sense."""
    name = shown(path)
    try:
        file = soundfile.SoundFile(for_libsndfile(path))
    except (soundfile.SoundFileError, OSError, TypeError) as error:
        raise UnusableFileError(
            "not audio", f"{name} cannot be decoded: {reason_of(error)}"
        ) from None
    verdict: Verdict = "not audio"
    problem = ""
    if file.frames == 0:
        verdict, problem = "empty", "has 0 samples; at least 1 is needed"
    elif not RATES[0] <= file.samplerate <= RATES[1]:
        problem = f"declares {file.samplerate} Hz; {RATES[0]} to {RATES[1]} Hz are understood"
    if problem:
        file.close()
        raise UnusableFileError(verdict, f"{name} {problem}")
    return file


def _kind(mode: int) -> str:
    """What something is that is not a regular file."""
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a pipe" if stat.S_ISFIFO(mode) else "a device or a socket"


def for_libsndfile(path: FilePath) -> str | bytes:
    """The form of a path that libsndfile opens: bytes, as names need not be UTF-8; text on Windows."""
    return os.fspath(path) if os.name == "nt" else os.fsencode(path)


def reason_of(error: Exception) -> str:
    """libsndfile's words without the path and the full stop in them."""
    return str(getattr(error, "error_string", error)).strip().rstrip(".")
