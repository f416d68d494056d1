"""Sides by hash: they stay when files come and go, copies share one, few files are split in time."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from audiovae.data.manifest import (
    FEW,
    Entry,
    Manifest,
    assign_splits,
    expect_usable,
    name_valid,
    read_manifest,
    side_of,
    write_manifest,
)
from audiovae.errors import DataError, OutputError


def entry(name: str, sound: str | None = None, **facts: str) -> Entry:
    """A usable file whose sound is made up from a word."""
    pcm = hashlib.sha256(os.fsencode(sound or name)).hexdigest()
    plain = Entry(name, 1.0, 44_100, 2, 44_100, 0.5, pcm, "", "ok", "")
    return plain._replace(**facts)  # type: ignore[arg-type]


def bad(name: str) -> Entry:
    """A file that cannot be used."""
    return entry(name, verdict="silent", reason="never louder", pcm_sha256="")


def test_about_a_tenth_goes_to_validation() -> None:
    rule, entries = assign_splits(entry(f"{i}.wav") for i in range(2_000))
    assert rule == "hash"
    assert 150 < sum(e.split == "valid" for e in entries) < 250
    assert {e.split for e in entries} == {"train", "valid"}


def test_a_file_keeps_its_side_when_others_come_and_go_or_are_renamed() -> None:
    _, many = assign_splits(entry(f"{i}.wav") for i in range(200))
    _, fewer = assign_splits(entry(f"{i}.wav") for i in range(0, 200, 2))
    _, renamed = assign_splits(entry(f"new {i}.wav", f"{i}.wav") for i in range(200))
    sides = {e.pcm_sha256: e.split for e in many}
    assert all(sides[e.pcm_sha256] == e.split for e in [*fewer, *renamed])


def test_copies_stand_on_one_side() -> None:
    _, entries = assign_splits(
        entry(f"{copy}/{i}.wav", f"{i}") for i in range(100) for copy in ("a", "b", "c")
    )
    by_sound: dict[str, set[str]] = {}
    for e in entries:
        by_sound.setdefault(e.pcm_sha256, set()).add(e.split)
    assert all(len(sides) == 1 for sides in by_sound.values())


def test_few_sounds_are_split_in_time_however_many_copies_there_are() -> None:
    few = [entry(f"{i}.wav") for i in range(FEW - 1)]
    copies = [entry(f"copy {i}.wav", "0.wav") for i in range(50)]
    rule, entries = assign_splits([*few, *copies, bad("x.wav")])
    assert rule == "last tenth"
    assert {e.split for e in entries} == {"both", ""}
    assert "last tenth of each file" in Manifest("f", "", rule, entries).describe()


def test_a_hash_that_leaves_a_side_bare_gives_way() -> None:
    on_one_side = [e for i in range(100) if side_of((e := entry(f"{i}")).pcm_sha256) == "train"]
    rule, entries = assign_splits(on_one_side)
    assert len(entries) >= FEW
    assert rule == "last tenth"


def test_a_named_validation_folder_takes_its_sounds_out_of_training() -> None:
    entries = name_valid(
        [entry("a.wav"), entry("b.wav"), bad("c.wav")],
        [entry("b again.wav", "b.wav"), bad("d.wav")],
    )
    assert [(e.path, e.split, e.verdict) for e in entries] == [
        ("a.wav", "train", "ok"),
        ("b.wav", "", "duplicate"),
        ("c.wav", "", "silent"),
        ("b again.wav", "valid", "ok"),
        ("d.wav", "", "silent"),
    ]
    assert "b again.wav" in entries[1].reason
    manifest = Manifest("music", "held", "folder", entries)
    assert manifest.full_path(entries[0]) == os.path.join("music", "a.wav")
    assert manifest.full_path(entries[3]) == os.path.join("held", "b again.wav")


def test_a_manifest_is_one_line_a_file_and_reads_back_equal(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\xfe\n\xf0\x9f\x8e\xbb.wav")
    rule, entries = assign_splits([entry(name), bad("c.wav")])
    manifest = Manifest("music", "", rule, entries)
    write_manifest(manifest, tmp_path / "m.jsonl")
    header, *rows = map(json.loads, (tmp_path / "m.jsonl").read_text().splitlines())
    assert header["format"] == 1
    assert (header["files"], header["usable"]) == (2, 1)
    assert "last tenth of each file is validation" in header["split_means"]
    assert header["fingerprint"] == manifest.fingerprint
    assert rows[1]["verdict"] == "silent"
    assert read_manifest(tmp_path / "m.jsonl") == manifest


def test_the_fingerprint_follows_the_sounds_and_not_the_place() -> None:
    manifest = Manifest("music", "", *assign_splits([entry("a.wav")]))
    assert manifest._replace(folder="elsewhere").fingerprint == manifest.fingerprint
    unusable = (*manifest.entries, bad("c.wav"))
    assert manifest._replace(entries=unusable).fingerprint == manifest.fingerprint
    other = Manifest("music", "", *assign_splits([entry("a.wav", "changed")]))
    assert other.fingerprint != manifest.fingerprint


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (Manifest("music", "", "hash", ()), r"music holds no files; wav, flac, ogg, mp3"),
        (
            Manifest("music", "", "last tenth", (bad("c.wav"), bad("d.wav"))),
            r"none of the 2 files in music can be used; c\.wav: never louder",
        ),
        (
            Manifest("music", "held", "folder", (entry("a.wav", split="train"),)),
            r"no file in held is left for the side 'valid'",
        ),
        (
            Manifest("music", "held", "folder", (entry("a.wav", split="valid"),)),
            r"no file in music is left for the side 'train'",
        ),
    ],
)
def test_nothing_to_train_on_says_why(manifest: Manifest, message: str) -> None:
    with pytest.raises(DataError, match=message):
        expect_usable(manifest)


@pytest.mark.parametrize("text", ["", "not json", "[]", '{"format": 1}', '{"a": 1}\n{}'])
def test_another_file_is_no_manifest(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.jsonl").write_text(text)
    with pytest.raises(DataError, match=r"m\.jsonl is not a manifest of audiovae"):
        read_manifest(tmp_path / "m.jsonl")


def test_a_newer_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"format": 2}')
    with pytest.raises(DataError, match="has format 2, 1 is understood"):
        read_manifest(tmp_path / "m.jsonl")


def test_a_manifest_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write .*none.*No such file"):
        write_manifest(Manifest("music", "", "hash", ()), tmp_path / "none" / "m.jsonl")
