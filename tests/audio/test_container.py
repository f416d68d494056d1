"""Whether a file is whole: cut at every kind of place, it is told from the whole one."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from audiovae.audio.container import has_no_length, looks_like_sound, missing_bytes

NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, (20_001, 2))


def encoded(format: str, subtype: str, endian: str = "FILE", **options: Any) -> bytes:
    """Noise in a format of libsndfile."""
    file = io.BytesIO()
    soundfile.write(file, NOISE, 44_100, subtype, format=format, endian=endian, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("format", "subtype", "endian"),
    [
        ("WAV", "PCM_16", "FILE"),
        ("WAV", "PCM_24", "BIG"),
        ("WAV", "FLOAT", "FILE"),
        ("WAVEX", "PCM_32", "FILE"),
        ("RF64", "PCM_24", "FILE"),
        ("AIFF", "PCM_16", "FILE"),
        ("AIFF", "PCM_16", "LITTLE"),
        ("AIFF", "FLOAT", "FILE"),
        ("OGG", "VORBIS", "FILE"),
    ],
)
def test_a_cut_file_is_told_from_the_whole_one(format: str, subtype: str, endian: str) -> None:
    whole = encoded(format, subtype, endian)
    assert looks_like_sound(whole[:12])
    assert missing_bytes(io.BytesIO(whole)) is None
    assert missing_bytes(io.BytesIO(whole + b"more")) is None  # other chunks, tags
    for size in [13, 44, 90, len(whole) // 10, len(whole) // 2, len(whole) - 1]:
        cut = missing_bytes(io.BytesIO(whole[:size]))
        assert cut is not None, size
        assert cut.declared > cut.present


def test_a_streamed_wav_declares_nothing() -> None:
    whole = encoded("WAV", "PCM_16")
    streamed = whole[:4] + b"\xff" * 4 + whole[8:40] + b"\xff" * 4 + whole[44:]
    assert missing_bytes(io.BytesIO(streamed)) is None
    assert missing_bytes(io.BytesIO(streamed[:1_000])) is None


def test_chunks_of_odd_size_are_stepped_over() -> None:
    whole = encoded("WAV", "PCM_16")
    odd = whole[:12] + b"note\x03\x00\x00\x00abc\x00" + whole[12:]
    assert missing_bytes(io.BytesIO(odd)) is None
    assert missing_bytes(io.BytesIO(odd[:-1])) == (len(whole) - 44, len(whole) - 45)


def test_an_ogg_that_ends_before_its_last_page_is_cut() -> None:
    whole = encoded("OGG", "VORBIS")
    last = whole.rfind(b"OggS")
    assert missing_bytes(io.BytesIO(whole[:last])) is not None  # whole pages, but no end of stream
    assert missing_bytes(io.BytesIO(b"OggS" + bytes(200))) is not None


def test_an_mp3_without_a_length_is_known_by_its_varying_rate() -> None:
    varying = encoded("MP3", "MPEG_LAYER_III", bitrate_mode="VARIABLE", compression_level=0.5)
    constant = encoded("MP3", "MPEG_LAYER_III", bitrate_mode="CONSTANT", compression_level=0.5)
    assert not has_no_length(io.BytesIO(varying))  # its first frame tells
    assert not has_no_length(io.BytesIO(without_first_frame(constant)))  # its size tells
    headless = without_first_frame(varying)
    assert has_no_length(io.BytesIO(headless))
    tag = b"ID3\x04\x00\x00" + bytes([0, 0, 2, 1])  # 2 * 128 + 1 bytes follow
    assert has_no_length(io.BytesIO(tag + bytes(257) + headless))


def test_libsndfile_would_lose_a_part_of_such_an_mp3(tmp_path: Path) -> None:
    """The reason for `has_no_length`: nobody says that samples are missing."""
    headless = without_first_frame(
        encoded("MP3", "MPEG_LAYER_III", bitrate_mode="VARIABLE", compression_level=0.5)
    )
    (tmp_path / "x.mp3").write_bytes(headless)
    assert len(soundfile.read(tmp_path / "x.mp3")[0]) < 0.8 * len(NOISE)


def without_first_frame(mp3: bytes) -> bytes:
    """An MP3 without the frame that holds its length: from the second sync word on."""
    return mp3[mp3.find(mp3[:2], 4) :]


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\xff",
        b"hello, world",
        "hi there".encode("utf-16"),
        b"\x89PNG\r\n\x1a\n",
        b"RIFF0000AVI ",
    ],
)
def test_other_files_do_not_look_like_sound(head: bytes) -> None:
    assert not looks_like_sound(head[:12])
