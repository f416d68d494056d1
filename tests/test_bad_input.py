"""Files that are no good, each with its verdict; and odd files that are good (issue section 9).

Every file is read three ways, whole, in blocks and by a scan, and must meet the same answer in each.
"""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiovae.audio.io import read, read_blocks
from audiovae.audio.opening import UnusableFileError
from audiovae.data import FolderData, open_dataset
from audiovae.data.scan import scan_folder
from audiovae.errors import DataError

RATE = 44_100
NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, (RATE, 2))


def encoded(
    format: str = "WAV", subtype: str | None = None, x: np.ndarray = NOISE, rate: int = RATE
) -> bytes:
    """Samples [T, C] as the bytes of a file."""
    file = io.BytesIO()
    soundfile.write(file, x, rate, subtype, format=format)
    return file.getvalue()


def cut(share: float, format: str, subtype: str | None = None) -> bytes:
    """A file of which only a share is there."""
    whole = encoded(format, subtype)
    return whole[: int(share * len(whole))]


def with_value(value: float) -> bytes:
    """A float WAV with one other sample: number 22050 of channel 1."""
    x = NOISE.copy()
    x[22_050, 1] = value
    return encoded("WAV", "FLOAT", x)


def mp3_without_length() -> bytes:
    """A varying bit rate, and not the first frame that says how long it is."""
    whole = encoded("MP3")
    return whole[whole.find(whole[:2], 4) :]


def ogg_with_a_hole() -> bytes:
    """Its first and its last page are whole."""
    whole = encoded("OGG")
    return whole[:9_000] + bytes(2_000) + whole[11_000:]


REFUSED: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "nan.wav": (lambda: with_value(np.nan), "not finite", r"holds nan at 0\.500 s \(sample 22050, ch"),
    "inf.wav": (lambda: with_value(-np.inf), "not finite", r"holds -inf at 0\.500 s"),
    "huge.wav": (
        lambda: encoded("WAV", "DOUBLE", np.full((9, 1), 1e300)), "not finite", r"holds inf at 0\.000 s"
    ),
    "tenth.wav": (lambda: cut(0.1, "WAV"), "truncated", r"declares 176400 bytes or more and 17600 are"),
    "half.wav": (lambda: cut(0.5, "WAV", "FLOAT"), "truncated", r"is truncated: .*export it again"),
    "byte.wav": (lambda: encoded()[:-1], "truncated", r"176400 bytes or more and 176399 are there"),
    "head.wav": (lambda: encoded()[:44], "truncated", r"and 0 are there"),
    "stub.wav": (lambda: encoded()[:20], "truncated", r"is truncated"),
    "liar.wav": (
        lambda: encoded()[:40] + b"\xf0\xff\xff\xff" + encoded()[44:60], "truncated", r"4294967280 bytes"
    ),
    "cut.aiff": (lambda: cut(0.5, "AIFF"), "truncated", r"is truncated"),
    "cut.ogg": (lambda: cut(0.5, "OGG"), "truncated", r"is truncated"),
    "cut.opus": (lambda: encoded("OGG", "OPUS", NOISE, 48_000)[:-1], "truncated", r"is truncated"),
    "hole.ogg": (ogg_with_a_hole, "truncated", r"declares 44100 samples and decoding ended at"),
    "cut.flac": (lambda: cut(0.5, "FLAC"), "truncated", r"damaged or cut short: .*lost sync"),
    "cut.mp3": (lambda: cut(0.5, "MP3"), "truncated", r"declares 44100 samples and decoding ended at"),
    "bare.mp3": (mp3_without_length, "no length", r"MP3 of varying bit rate that does not declare"),
    "empty.wav": (lambda: b"", "empty", r"is empty \(0 bytes\)"),
    "none.wav": (lambda: encoded(x=np.zeros((0, 1))), "empty", r"has 0 samples; at least 1 is needed"),
    "words.wav": (lambda: b"not a sound at all", "not audio", r"is not sound; wav, flac, ogg"),
    "four.wav": (lambda: b"RIFF", "not audio", r"is not sound"),
    "utf16.txt": (lambda: ("words " * 99).encode("utf-16"), "not audio", r"is not sound"),
    "image.mp3": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(99), "not audio", r"is not sound"),
    "junk.flac": (lambda: b"fLaC" + bytes(range(256)), "not audio", r"cannot be decoded"),
    "video.wav": (lambda: b"RIFF\0\0\0\0AVI LIST", "not audio", r"is not sound"),
    "tape.caf": (lambda: encoded("CAF"), "not audio", r"is not sound"),
    "fast.wav": (lambda: encoded(rate=2**31 - 1), "not audio", r"declares 2147483647 Hz; 1000 to"),
    "six.wav": (
        lambda: encoded(x=np.zeros((99, 6))), "too many channels", r"has 6 channels; .*--per-channel"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_file_is_refused_with_its_reason(name: str, tmp_path: Path) -> None:
    make, verdict, message = REFUSED[name]
    (tmp_path / name).write_bytes(make())
    for way in (lambda: read(tmp_path / name), lambda: list(read_blocks(tmp_path / name, 10_000))):
        with pytest.raises(UnusableFileError, match=message) as caught:
            way()
        assert caught.value.verdict == verdict
        assert name in str(caught.value)
    [entry] = scan_folder(str(tmp_path)).entries
    assert (entry.path, entry.verdict, entry.split) == (name, verdict, "")
    assert entry.reason


@pytest.mark.parametrize(
    ("format", "subtype"),
    [
        ("WAV", "PCM_16"),
        ("WAV", "FLOAT"),
        ("RF64", "PCM_24"),
        ("AIFF", "PCM_24"),
        ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("MP3", "MPEG_LAYER_III"),
    ],
)
def test_no_length_of_a_cut_file_passes(format: str, subtype: str, tmp_path: Path) -> None:
    whole = encoded(format, subtype, NOISE[:1_500], 48_000)
    path = tmp_path / "x"
    path.write_bytes(whole)
    assert read(path).samples.shape == (2, 1_500)
    for size in [*range(0, 60, 3), *range(60, len(whole), len(whole) // 40), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(UnusableFileError):
            read(path)


def test_what_is_not_a_file_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")  # opening it would wait for ever
    (tmp_path / "zero.wav").symlink_to("/dev/zero")
    for name, kind in [("pipe.wav", "a pipe"), ("zero.wav", "a device"), (".", "a folder")]:
        with pytest.raises(UnusableFileError, match=rf"is {kind}.*; a file of sound is needed"):
            read(tmp_path / name)
    assert [e.verdict for e in scan_folder(str(tmp_path)).entries] == ["not a file"] * 2


def test_a_socket_is_not_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s.wav")
        with pytest.raises(UnusableFileError, match=r"s\.wav is a device or a socket"):
            read("s.wav")


def test_what_cannot_be_read_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnusableFileError, match=r"there is no file .*none\.wav"):
        read(tmp_path / "none.wav")
    (tmp_path / "x.wav").write_bytes(encoded())

    def closed(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", closed)  # rights do not bind the superuser of a container
    with pytest.raises(
        UnusableFileError, match=r"cannot read .*x\.wav: Permission denied"
    ) as caught:
        read(tmp_path / "x.wav")
    assert caught.value.verdict == "unreadable"


@pytest.mark.parametrize("texts", [0, 3])
def test_a_folder_without_sound_is_refused(texts: int, tmp_path: Path) -> None:
    for i in range(texts):
        (tmp_path / f"{i}.txt").write_text("words, words")
    message = (
        r"none of the 3 files in .* can be used; 0\.txt: it is not sound" if texts else "no files"
    )
    with pytest.raises(DataError, match=message):
        open_dataset(FolderData(path=str(tmp_path)), sample_rate=RATE, channels=1)


def test_bad_files_beside_good_ones_are_listed_and_not_replaced(tmp_path: Path) -> None:
    for name, (make, _, _) in REFUSED.items():
        (tmp_path / name).write_bytes(make())
    (tmp_path / "good.wav").write_bytes(encoded())
    data = open_dataset(
        FolderData(path=str(tmp_path), segment_seconds=0.1), sample_rate=RATE, channels=2
    )
    assert f"1 of {len(REFUSED) + 1} files usable" in data.describe()
    sources = data.train_batch(0, 0, range(8)).sources
    assert {Path(source.split("@")[0]).name for source in sources} == {"good.wav"}


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_rate_depth_and_width_is_read(
    tmp_path: Path, rate: int, subtype: str, channels: int
) -> None:
    x = NOISE[: rate // 5, :channels]
    (tmp_path / "x.wav").write_bytes(encoded("WAV", subtype, x, rate))
    samples, got = read(tmp_path / "x.wav")
    assert got == rate
    bits = {"PCM_U8": 8, "PCM_16": 16}.get(subtype, 24)
    assert np.abs(samples.numpy().T - x).max() <= 2.0 ** (1 - bits)
    [entry] = scan_folder(str(tmp_path)).entries
    assert (entry.verdict, entry.sample_rate, entry.channels) == ("ok", rate, channels)


@pytest.mark.parametrize("frames", [1, 2, 3, 511, 512, 513])
def test_every_length_is_read(tmp_path: Path, frames: int) -> None:
    (tmp_path / "x.wav").write_bytes(encoded("WAV", "FLOAT", NOISE[:frames]))
    assert read(tmp_path / "x.wav").samples.shape == (2, frames)
    assert sum(b.shape[1] for b in read_blocks(tmp_path / "x.wav", 512)) == frames


@pytest.mark.parametrize(
    ("name", "x", "verdict"),
    [
        ("direct current", np.full((RATE, 1), 0.7), "ok"),
        ("square at full scale", np.sign(np.sin(np.arange(RATE) / 20))[:, None], "ok"),
        ("above full scale", 4 * NOISE, "ok"),
        ("opposite channels", NOISE[:, :1] * [1, -1], "ok"),
        ("one dead channel", NOISE * [1, 0], "ok"),
        ("silence", np.zeros((RATE, 2)), "silent"),  # it is read, and not trained on
    ],
)
def test_odd_sounds_are_read_as_they_are(
    tmp_path: Path, name: str, x: np.ndarray, verdict: str
) -> None:
    (tmp_path / "x.wav").write_bytes(encoded("WAV", "FLOAT", x))
    assert np.array_equal(read(tmp_path / "x.wav").samples.numpy().T, x.astype(np.float32))
    [entry] = scan_folder(str(tmp_path)).entries
    assert entry.verdict == verdict, name
