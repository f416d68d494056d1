"""A folder is whole or as it was before, whatever fails while it is written; any flipped bit is noticed."""

from __future__ import annotations

import builtins
import errno
import json
import os
import random
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from audiovae.checkpoint import FORMAT, Manifest, folder, remove_temporary, write_folder
from audiovae.errors import CheckpointError, OutputError

OLD: Mapping[str, Any] = {"a.json": {"x": 1}, "b.safetensors": {"w": torch.arange(4.0)}}
NEW: Mapping[str, Any] = {"a.json": {"x": 2}, "b.safetensors": {"w": torch.arange(5.0)}}


class Killed(BaseException):
    """The process is gone: nothing of ours runs any more."""


class Faults:
    """Counts every operation that can fail on a disk, and fails one of them."""

    def __init__(self, patch: pytest.MonkeyPatch, fails_at: int, error: BaseException) -> None:
        self.count = 0
        self.fails_at = fails_at
        self.error = error
        patch.setattr(os, "fsync", self.counted(os.fsync))
        patch.setattr(os, "rename", self.counted(os.rename))
        patch.setattr(Path, "mkdir", self.counted(Path.mkdir))
        patch.setattr(folder, "open", self.counted(builtins.open), raising=False)
        if isinstance(error, Killed):  # the dead clean up nothing
            patch.setattr(shutil, "rmtree", self.counted(shutil.rmtree))

    def counted(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            if self.count == self.fails_at or (
                self.count > self.fails_at and isinstance(self.error, Killed)
            ):
                raise self.error
            return operation(*args, **kwargs)

        return call


def content(path: Path) -> str:
    """Which of the two contents a folder holds, after verifying it."""
    manifest = Manifest.read(path)
    manifest.check()
    return {1: "old", 2: "new"}[manifest.json("a.json")["x"]]


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_a_disk_that_fails_at_any_operation_leaves_what_was_there(
    tmp_path: Path, there: bool, number: int
) -> None:
    path, at, done = tmp_path / "model", 0, False
    while not done:
        at += 1
        shutil.rmtree(path, ignore_errors=True)
        if there:
            write_folder(path, OLD)
        with pytest.MonkeyPatch.context() as patch:
            faults = Faults(patch, at, OSError(number, os.strerror(number)))
            try:
                write_folder(path, NEW, replace=True)
                done = faults.count < at
            except OutputError as error:
                assert os.strerror(number) in str(error)
        assert (content(path) if path.exists() else None) == (
            "new" if done else "old" if there else None
        )
        assert [p.name for p in tmp_path.iterdir() if p != path] == []
    assert at > 10


@pytest.mark.parametrize("there", [False, True])
def test_a_process_that_dies_at_any_operation_leaves_the_old_or_the_new(
    tmp_path: Path, there: bool
) -> None:
    path, at, done = tmp_path / "step_1", 0, False
    while not done:
        at += 1
        shutil.rmtree(path, ignore_errors=True)
        if there:
            write_folder(path, OLD)
        with pytest.MonkeyPatch.context() as patch:
            faults = Faults(patch, at, Killed())
            try:
                write_folder(path, NEW, replace=True)
                done = faults.count < at
            except Killed:
                pass
        remove_temporary(tmp_path)  # what the next start does
        assert [p.name for p in tmp_path.iterdir() if p != path] == []
        assert content(path) in ("old", "new") if there or path.exists() else not done
    assert at > 10


def test_an_existing_folder_is_kept_unless_it_may_be_replaced(tmp_path: Path) -> None:
    write_folder(tmp_path / "model", OLD)
    with pytest.raises(OutputError, match=r"model exists; name another folder"):
        write_folder(tmp_path / "model", NEW)
    assert content(tmp_path / "model") == "old"


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    shared = torch.randn(3, 4)
    tied = {"b": shared, "a": shared, "c": shared.mT}  # shared memory, and not contiguous
    for name in ("one", "two"):
        write_folder(tmp_path / name, {"w.safetensors": tied})
    one, two = (Manifest.read(tmp_path / name) for name in ("one", "two"))
    assert one.files == two.files
    for name, tensor in one.tensors("w.safetensors").items():
        assert torch.equal(tensor, tied[name])


def test_every_flipped_bit_is_noticed_and_its_file_named(tmp_path: Path) -> None:
    path, chance = tmp_path / "model", random.Random(0)
    write_folder(path, OLD)
    for file in sorted(path.iterdir()):
        whole = file.read_bytes()
        for position in range(len(whole)):
            broken = bytearray(whole)
            broken[position] ^= 1 << chance.randrange(8)
            file.write_bytes(broken)
            with pytest.raises(CheckpointError, match=re.escape(file.name)):
                Manifest.read(path).check()
        file.write_bytes(whole)
    Manifest.read(path).check()


def test_a_cut_a_missing_and_an_unlisted_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model"
    write_folder(path, OLD)
    data = (path / "b.safetensors").read_bytes()
    (path / "b.safetensors").write_bytes(data[:-1])
    message = rf"b.safetensors is damaged: it has {len(data) - 1} bytes, {len(data)} were written"
    with pytest.raises(CheckpointError, match=message):
        Manifest.read(path).tensors("b.safetensors")
    (path / "b.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"b.safetensors is missing, although manifest.json"):
        Manifest.read(path).check()
    with pytest.raises(CheckpointError, match=r"does not list c.json"):
        Manifest.read(path).json("c.json")


def test_what_is_not_a_manifest_or_not_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"is not a model folder .* manifest.json is missing"):
        Manifest.read(tmp_path)
    for text in ("", "[]", "{}", "null", "\udcff"):
        (tmp_path / "manifest.json").write_text(text, errors="surrogateescape")
        with pytest.raises(CheckpointError, match=r"manifest.json is damaged"):
            Manifest.read(tmp_path)
    path = tmp_path / "model"
    write_folder(path, {"a.json": 1})
    with pytest.raises(CheckpointError, match=r"a.json is not a safetensors file"):
        Manifest.read(path).tensors("a.json")


def test_a_newer_format_says_to_update(tmp_path: Path) -> None:
    path = tmp_path / "model"
    write_folder(path, OLD)
    values = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(values | {"format": FORMAT + 1}))
    with pytest.raises(
        CheckpointError, match=rf"format {FORMAT + 1}, .* reads up to {FORMAT}; update"
    ):
        Manifest.read(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model"
    write_folder(path, OLD)
    (path / "a.json").unlink()
    (path / "a.json").mkdir()
    with pytest.raises(CheckpointError, match=r"cannot read .*a.json: Is a directory"):
        Manifest.read(path).check()
