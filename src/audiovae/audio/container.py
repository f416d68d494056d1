"""Is a sound file whole?  Walks its container: libsndfile shortens cut files without a word.

A WAV (RIFF, RF64) or AIFF declares the bytes of its sound chunk; an Ogg stream ends in a page with the
end-of-stream flag (RFC 3533, section 6). FLAC and MP3 are left to the decoder: a cut FLAC raises, a cut MP3
gives fewer samples than its first frame declares. An MP3 without that declaration is as long as its bytes and
the bit rate of its first frame say, which is wrong by any factor if the rate varies (ISO 11172-3, 2.4.1.3).
"""

from __future__ import annotations

import os
from typing import BinaryIO, Literal, NamedTuple

UNKNOWN_SIZE = 0xFFFF_FFFF  # what a program writes that streams a WAV into a pipe
OGG_PAGE_LIMIT = 65_307  # bytes: 27 + 255 lengths + 255 x 255
END_OF_STREAM = 4
MPEG_1, MPEG_2 = 3, 2  # version bits of a frame; 0 is the unofficial 2.5, with the tables of 2
KILOBITS = {  # by version, of layer III
    MPEG_1: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    MPEG_2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
MPEG_RATES = (44_100, 48_000, 32_000)  # Hz, of MPEG 1; a half of it in 2, a quarter in 2.5
MPEG_LOOK = 1 << 22  # bytes of an MP3 that are looked through: 100 s at the highest rate


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
    return _is_layer_3(head)


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


def has_no_length(file: BinaryIO) -> bool:
    """Whether a file is an MP3 of varying bit rate that does not say how long it is."""
    file.seek(0)
    head = file.read(10)
    start = 0
    if head[:3] == b"ID3":  # its size has 7 bits a byte
        start = 10 + sum(
            (byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=False)
        )
    file.seek(start)
    data = file.read(MPEG_LOOK)
    if not _is_layer_3(data) or b"Xing" in data[:200] or b"Info" in data[:200]:
        return False
    at, seen = 0, set()
    while _is_layer_3(data[at : at + 2]) and (frame := _mpeg_frame(data[at : at + 4])):
        kilobits, length = frame
        seen.add(kilobits)
        at += length
    return len(seen) > 1


def _is_layer_3(head: bytes) -> bool:
    """Whether bytes begin like a frame of an MP3: eleven set bits, any version, layer III."""
    return len(head) > 1 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2


def _mpeg_frame(header: bytes) -> tuple[int, int] | None:
    """Bit rate in kilobits and length in bytes of a frame; None if its header makes no sense."""
    if len(header) < 4 or header[2] >> 4 in (0, 15) or header[2] >> 2 & 3 == 3:
        return None
    version = header[1] >> 3 & 3
    halvings = {MPEG_1: 0, MPEG_2: 1}.get(version, 2)
    kilobits = KILOBITS[MPEG_1 if halvings == 0 else MPEG_2][header[2] >> 4]
    rate = MPEG_RATES[header[2] >> 2 & 3] >> halvings
    samples = 1152 if halvings == 0 else 576
    return kilobits, samples * kilobits * 125 // rate + (header[2] >> 1 & 1)


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
