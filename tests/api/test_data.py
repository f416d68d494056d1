"""The verb that scans: from a folder to a manifest and to lines for people."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from audiovae.api.data import LISTED, scan
from audiovae.audio.io import write
from audiovae.data.manifest import read_manifest
from audiovae.errors import DataError, OutputError


def sound(path: Path, level: float = 0.5) -> None:
    """Write a second of sound."""
    path.parent.mkdir(exist_ok=True)
    write(path, torch.full((1, 8_000), level), 8_000)


def test_scan_returns_what_it_writes(tmp_path: Path) -> None:
    sound(tmp_path / "music" / "x.wav")
    found = scan(tmp_path / "music", out=tmp_path / "m.jsonl", quiet=True)
    assert found.path == tmp_path / "m.jsonl"
    assert read_manifest(found.path) == found.manifest
    assert [e.path for e in found.manifest.usable] == ["x.wav"]
    with pytest.raises(OutputError, match=r"m\.jsonl exists; --force replaces it"):
        scan(tmp_path / "music", out=tmp_path / "m.jsonl")
    assert scan(tmp_path / "music", out=tmp_path / "m.jsonl", force=True) == found


def test_without_a_name_the_manifest_goes_to_the_cache_and_is_replaced(tmp_path: Path) -> None:
    sound(tmp_path / "music" / "x.wav")
    first = scan(tmp_path / "music")
    sound(tmp_path / "music" / "y.wav", 0.4)
    second = scan(tmp_path / "music")
    assert second.path == first.path
    assert second.path.name.startswith("music-")
    assert [e.path for e in read_manifest(second.path).usable] == ["x.wav", "y.wav"]
    assert [p.name for p in (tmp_path / "music").iterdir() if p.suffix != ".wav"] == []


def test_files_that_are_left_out_are_told_with_their_reasons(tmp_path: Path) -> None:
    sound(tmp_path / "music" / "x.wav")
    for i in range(LISTED + 3):
        (tmp_path / "music" / f"{i:02d}.txt").write_text("words, words")
    found = scan(tmp_path / "music")
    text = found.describe()
    assert f"1 of {LISTED + 4} files usable" in text
    assert "  00.txt: not audio: it is not sound; wav, flac, ogg" in text
    assert "  and 3 more\n" in text
    assert text.endswith(f"manifest: {found.path}")


def test_a_folder_without_sound_leaves_its_reasons_and_raises(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for name in ("a.txt", "b.wav"):
        (tmp_path / "texts" / name).write_text("these are words")
    message = (
        r"none of the 2 files in .*texts can be used; a\.txt: it is .*; every reason is in .*m\.j"
    )
    with pytest.raises(DataError, match=message):
        scan(tmp_path / "texts", out=tmp_path / "m.jsonl")
    entries = read_manifest(tmp_path / "m.jsonl").entries
    assert [(e.path, e.verdict) for e in entries] == [
        ("a.txt", "not audio"),
        ("b.wav", "not audio"),
    ]


def test_a_named_validation_folder_is_scanned_too(tmp_path: Path) -> None:
    sound(tmp_path / "train" / "train.wav", 0.3)
    sound(tmp_path / "valid" / "valid.wav", 0.4)
    found = scan(tmp_path / "train", valid=tmp_path / "valid")
    assert [(e.path, e.split) for e in found.manifest.usable] == [
        ("train.wav", "train"),
        ("valid.wav", "valid"),
    ]
