"""Is a sound file whole?  Walks its container: libsndfile shortens cut files without a word.

A WAV (RIFF, RF64) or AIFF declares the bytes of its sound chunk; an Ogg stream ends in a page with the
end-of-stream flag (RFC 3533, section 6). FLAC and MP3 are left to the decoder: a cut FLAC raises, a cut MP3
gives fewer samples than its first frame declares.
"""

from __future__ import annotations

import os
from typing import BinaryIO, Literal, NamedTuple

UNKNOWN_SIZE = 0xFFFF_FFFF  # what a program writes that streams a WAV into a pipe
OGG_PAGE_LIMIT = 65_307  # bytes: 27 + 255 lengths + 255 x 255
END_OF_STREAM = 4


class Missing(NamedTuple):
    """How much of a file is not there."""

    declared: int  # bytes
    present: int  # bytes


def looks_like_sound(head: bytes) -> bool:
    """Whether the first 12 bytes of a file are those of a format that is read here."""
    if head[:4] in (b"RIFF", b"RIFX", b"RF64"):
        return head[8:12] == b"WAVE"
    if head[:4] == b"FORM":
        return head[8:12] in (b"AIFF", b"AIFC")
    if head[:4] in (b"fLaC", b"OggS") or head[:3] == b"ID3":
        return True
    return len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0  # an MPEG frame's sync


def missing_bytes(file: BinaryIO) -> Missing | None:
    """What the container declares and the file does not hold; None if it is whole or cannot say."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(12)
    if head[8:12] == b"WAVE":
        return _cut_chunk(file, size, b"data", "big" if head[:4] == b"RIFX" else "little")
    if head[:4] == b"FORM":
        return _cut_chunk(file, size, b"SSND", "big")
    if head[:4] == b"OggS":
        return _cut_ogg(file, size)
    return None


def _cut_chunk(
    file: BinaryIO, size: int, name: bytes, order: Literal["little", "big"]
) -> Missing | None:
    """Walk the chunks to the one with the sound and compare its size with what is left."""
    large = 0  # the 64-bit size of an RF64, from its ds64 chunk
    while len(header := file.read(8)) == 8:
        declared = int.from_bytes(header[4:], order)
        at = file.tell()
        if header[:4] == b"ds64":
            large = int.from_bytes(file.read(16)[8:], "little")
        if header[:4] == name:
            if declared == UNKNOWN_SIZE:
                declared = large
            return Missing(declared, size - at) if declared > size - at else None
        file.seek(at + declared + declared % 2)
    return Missing(8, 0)  # it ends before its sound begins


def _cut_ogg(file: BinaryIO, size: int) -> Missing | None:
    """Find the last page; it must be complete and carry the end-of-stream flag."""
    start = max(0, size - 2 * OGG_PAGE_LIMIT)
    file.seek(start)
    tail = file.read()
    at = tail.rfind(b"OggS\0")
    header = tail[at : at + 27]
    if at < 0 or len(header) < 27:
        return Missing(size + 1, size)
    lengths = tail[at + 27 : at + 27 + header[26]]
    end = start + at + 27 + header[26] + sum(lengths)
    if len(lengths) < header[26] or end > size:
        return Missing(max(end, size + 1), size)
    return None if header[5] & END_OF_STREAM else Missing(size + 1, size)
