"""The verb that scans: from a folder to a manifest, in Python."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from audiovae.api.data import scan
from audiovae.audio.io import write
from audiovae.data.manifest import read_manifest
from audiovae.errors import DataError, OutputError


def test_scan_returns_what_it_writes(tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    write(tmp_path / "music" / "x.wav", torch.full((1, 8_000), 0.5), 8_000)
    manifest = scan(tmp_path / "music", out=tmp_path / "m.jsonl", quiet=True)
    assert read_manifest(tmp_path / "m.jsonl") == manifest
    assert [e.path for e in manifest.usable] == ["x.wav"]
    with pytest.raises(OutputError, match=r"m\.jsonl exists; --force replaces it"):
        scan(tmp_path / "music", out=tmp_path / "m.jsonl")
    assert scan(tmp_path / "music", out=tmp_path / "m.jsonl", force=True) == manifest


def test_a_folder_without_sound_leaves_its_reasons_and_raises(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for name in ("a.txt", "b.wav"):
        (tmp_path / "texts" / name).write_text("these are words")
    with pytest.raises(
        DataError, match=r"none of the 2 files in .*texts can be used; a\.txt: it is"
    ):
        scan(tmp_path / "texts", out=tmp_path / "m.jsonl")
    entries = read_manifest(tmp_path / "m.jsonl").entries
    assert [(e.path, e.verdict) for e in entries] == [
        ("a.txt", "not audio"),
        ("b.wav", "not audio"),
    ]


def test_a_named_validation_folder_is_scanned_too(tmp_path: Path) -> None:
    for side, level in (("train", 0.3), ("valid", 0.4)):
        (tmp_path / side).mkdir()
        write(tmp_path / side / f"{side}.wav", torch.full((1, 8_000), level), 8_000)
    manifest = scan(tmp_path / "train", valid=tmp_path / "valid")
    assert [(e.path, e.split) for e in manifest.usable] == [
        ("train.wav", "train"),
        ("valid.wav", "valid"),
    ]
