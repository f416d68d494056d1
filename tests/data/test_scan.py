"""A scan names every file once with its verdict, survives what folders hold, and remembers."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiovae.data import scan
from audiovae.data.manifest import Entry, write_manifest
from audiovae.data.scan import scan_folder, walk
from audiovae.errors import DataError

RATE = 8_000


def sound(path: Path, seconds: float = 0.25, seed: int = 0, level: float = 0.5) -> Path:
    """Write noise of a seed; equal seeds are equal sounds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    x = np.random.default_rng(seed).uniform(-level, level, round(seconds * RATE))
    soundfile.write(path, np.int16(x * 32_767), RATE, subtype="PCM_16")
    return path


def verdicts(folder: Path) -> dict[str, str]:
    """The verdict of every path."""
    return {e.path: e.verdict for e in scan_folder(str(folder), quiet=True).entries}


def examined(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that are decoded from now on."""
    paths: list[str] = []
    real = scan.examine

    def examine(folder: str, path: str) -> Entry:
        paths.append(path)
        return real(folder, path)

    monkeypatch.setattr(scan, "examine", examine)
    return paths


def test_facts_are_those_of_the_file(tmp_path: Path) -> None:
    x = np.linspace(-0.5, 0.75, 4_000, dtype=np.float32)[:, None].repeat(2, 1)
    soundfile.write(tmp_path / "x.wav", x, RATE, subtype="FLOAT")
    [entry] = scan_folder(str(tmp_path)).entries
    assert entry[:6] == ("x.wav", 0.5, RATE, 2, 4_000, 0.75)
    assert entry.pcm_sha256 == hashlib.sha256(x.tobytes()).hexdigest()
    assert (entry.verdict, entry.reason, entry.split) == ("ok", "", "both")


def test_one_sound_in_two_formats_has_one_hash(tmp_path: Path) -> None:
    sound(tmp_path / "x.wav")
    sound(tmp_path / "deep" / "er" / "x.flac")
    first, second = scan_folder(str(tmp_path)).entries
    assert {first.path, second.path} == {"x.wav", os.path.join("deep", "er", "x.flac")}
    assert first.pcm_sha256 == second.pcm_sha256


def test_thresholds_give_short_and_silent_files_their_verdict(tmp_path: Path) -> None:
    sound(tmp_path / "short.wav", seconds=0.05)
    sound(tmp_path / "silent.wav", level=0.0005)
    sound(tmp_path / "zeros.wav", level=0)
    entries = {e.path: e for e in scan_folder(str(tmp_path)).entries}
    assert entries["short.wav"].verdict == "too short"
    assert entries["short.wav"].reason == "lasts 0.0500 s; at least 0.1 s are needed"
    for name in ("silent.wav", "zeros.wav"):
        assert entries[name].verdict == "silent"
        assert "never louder than -60 dB of full scale" in entries[name].reason
    wider = scan_folder(str(tmp_path), minimum_seconds=0.01, silence_db=-90)
    assert [e.path for e in wider.usable] == ["short.wav", "silent.wav"]


def test_loops_and_links_are_followed_once(tmp_path: Path) -> None:
    music = tmp_path / "music"
    sound(music / "a" / "x.wav")
    sound(tmp_path / "elsewhere" / "y.wav")
    sound(tmp_path / "beside.wav")
    (music / "a" / "loop").symlink_to(music / "a")
    (music / "up").symlink_to(tmp_path)
    (music / "out").symlink_to(tmp_path / "elsewhere")
    (music / "dangling").symlink_to(tmp_path / "none")
    found = sorted(walk(str(music)))
    assert found == [os.path.join("a", "x.wav"), "dangling", os.path.join("out", "y.wav")]
    assert verdicts(music)["dangling"] == "unreadable"


def test_names_of_any_bytes_survive_into_the_manifest(tmp_path: Path) -> None:
    names = [b"\xff\xfe.wav", "é🎻.wav".encode(), b"new\nline.wav", b"-dash.wav"]
    data = sound(tmp_path / "plain.wav").read_bytes()
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(data)
    manifest = scan_folder(str(tmp_path))
    assert {os.fsencode(e.path) for e in manifest.usable} == {*names, b"plain.wav"}
    write_manifest(manifest, tmp_path / "m.jsonl")
    assert len((tmp_path / "m.jsonl").read_text().splitlines()) == 6
    manifest.describe().encode()


def test_what_cannot_be_opened_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound(tmp_path / "closed" / "x.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    real = os.listdir

    def listdir(path: str) -> list[str]:
        if path.endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "listdir", listdir)
    entries = scan_folder(str(tmp_path)).entries
    assert [(e.path, e.verdict, e.reason) for e in entries] == [
        ("closed", "unreadable", "the folder cannot be opened"),
        ("pipe.wav", "not a file", "it is a pipe; a file of sound is needed"),
    ]


def test_a_second_scan_reads_only_what_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(4):
        sound(tmp_path / f"{i}.wav", seed=i)
    (tmp_path / "note.txt").write_text("no sound")
    first = scan_folder(str(tmp_path))
    paths = examined(monkeypatch)
    assert scan_folder(str(tmp_path)) == first
    assert paths == []
    sound(tmp_path / "2.wav", seed=22)
    os.utime(tmp_path / "2.wav", ns=(1, 1))
    sound(tmp_path / "4.wav", seed=4)
    (tmp_path / "0.wav").unlink()
    second = scan_folder(str(tmp_path))
    assert sorted(paths) == ["2.wav", "4.wav"]
    assert [e.path for e in second.entries] == ["1.wav", "2.wav", "3.wav", "4.wav", "note.txt"]
    assert second.entries[1].pcm_sha256 != first.entries[2].pcm_sha256


def test_a_memory_torn_by_a_kill_costs_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("AUDIOVAE_CACHE", str(cache))
    for i in range(3):
        sound(tmp_path / "music" / f"{i}.wav", seed=i)
    first = scan_folder(str(tmp_path / "music"))
    [memory] = (cache / "scans").iterdir()
    memory.write_bytes(memory.read_bytes()[:-20])
    paths = examined(monkeypatch)
    assert scan_folder(str(tmp_path / "music")) == first
    assert len(paths) == 1
    assert scan_folder(str(tmp_path / "music")) == first
    assert len(paths) == 1


def test_the_same_folder_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(30):
        sound(tmp_path / "music" / f"{i}.wav", seed=i % 25)
    (tmp_path / "music" / "z.wav").write_bytes(b"")
    for run in ("a", "b"):
        monkeypatch.setenv("AUDIOVAE_CACHE", str(tmp_path / f"cache {run}"))
        write_manifest(scan_folder(str(tmp_path / "music")), tmp_path / run)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_named_validation_folder(tmp_path: Path) -> None:
    for i in range(4):
        sound(tmp_path / "train" / f"{i}.wav", seed=i)
    sound(tmp_path / "valid" / "a.wav", seed=3)
    manifest = scan_folder(str(tmp_path / "train"), valid=str(tmp_path / "valid"))
    assert manifest.rule == "folder"
    assert [(e.path, e.split) for e in manifest.usable] == [
        ("0.wav", "train"),
        ("1.wav", "train"),
        ("2.wav", "train"),
        ("a.wav", "valid"),
    ]


def test_a_folder_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no folder .*none"):
        scan_folder(str(tmp_path / "none"))


def test_progress_is_shown_on_a_terminal_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sound(tmp_path / "x.wav")
    scan_folder(str(tmp_path))
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal
    sound(tmp_path / "y.wav")
    scan_folder(str(tmp_path), quiet=True)
    assert capsys.readouterr() == ("", "")
    sound(tmp_path / "z.wav")
    scan_folder(str(tmp_path))
    assert "scan" in capsys.readouterr().err
    scan_folder(str(tmp_path))
    assert capsys.readouterr().err == ""  # nothing new, nothing to wait for
