"""A folder that is whole or not there, and that notices a single flipped bit.

safetensors and JSON have no checksum: of 600 single-bit flips in a safetensors file all 600 load silently wrong.  So a
manifest lists the size and SHA-256 of every file and a digest of itself, and a file is compared with it before it is
parsed.  A folder is written beside its place, synced file by file, the manifest last, and renamed: a crash at any
moment leaves the old folder or the new one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from audiovae import __version__
from audiovae.errors import CheckpointError, DamagedError, OutputError
from audiovae.paths import sync_folder

FORMAT = 1  # raised when an older audiovae could no longer read what this one writes
MANIFEST = "manifest.json"


class Manifest(NamedTuple):
    """The checked list of what a model folder holds, and the only way its files are read."""

    folder: Path
    format: int
    files: dict[str, dict[str, Any]]  # name -> {"bytes": n, "sha256": hex}

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the list and check it against its own digest.  Raises CheckpointError, or DamagedError."""
        path = folder / MANIFEST
        if not path.is_file():
            raise DamagedError(
                f"{folder} is not a model folder of audiovae: {MANIFEST} is missing; it is written "
                "together with config.json and model.safetensors"
            )
        data = _read(path)
        try:
            values = json.loads(data)
            written, digest = values["format"], values.pop("digest")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DamagedError(f"{path} is damaged: it is not a manifest of audiovae") from None
        if isinstance(written, int) and written > FORMAT:
            raise CheckpointError(
                f"{path} has format {written}, this audiovae ({__version__}) reads up to {FORMAT}; "
                "update audiovae"
            )
        if digest != _sha256(_dump(values)):
            raise DamagedError(f"{path} is damaged: its digest is not that of its content")
        return cls(folder, written, values["files"])

    @property
    def model_hash(self) -> str:
        """SHA-256 over config and weights."""
        named = ("config.json", "model.safetensors")
        return _sha256("".join(self._entry(name)["sha256"] for name in named).encode())

    def content(self, name: str) -> bytes:
        """Read a file and compare it with the list.  Raises CheckpointError that names it, DamagedError if it differs."""
        entry, path = self._entry(name), self.folder / name
        data = _read(path)
        if len(data) != entry["bytes"]:
            raise DamagedError(
                f"{path} is damaged: it has {len(data)} bytes, {entry['bytes']} were written"
            )
        if _sha256(data) != entry["sha256"]:
            raise DamagedError(f"{path} is damaged: its SHA-256 is not the one in {MANIFEST}")
        return data

    def json(self, name: str) -> Any:
        """The checked content of a JSON file."""
        return json.loads(self.content(name))

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The checked content of a safetensors file, on the CPU."""
        try:
            return safetensors.torch.load(self.content(name))
        except safetensors.SafetensorError as error:
            raise CheckpointError(
                f"{self.folder / name} is not a safetensors file: {error}"
            ) from None

    def check(self) -> None:
        """Read and compare every file.  Raises CheckpointError that names the first damaged one."""
        for name in self.files:
            self.content(name)

    def _entry(self, name: str) -> dict[str, Any]:
        if name not in self.files:
            raise DamagedError(f"{self.folder / MANIFEST} does not list {name}: not a whole model")
        return self.files[name]


def write_folder(folder: Path, contents: Mapping[str, Any], *, replace: bool = False) -> None:
    """Write files and their manifest as one folder that appears whole or not at all.

    `contents` holds, by file name, a mapping of tensors for .safetensors and anything JSON can hold for .json.
    Raises OutputError if the folder exists (unless `replace`) or if the disk refuses; what was there before is then
    still there.
    """
    _expect_place(folder, replace)
    place_files(folder, _packed(contents), replace=replace)


def place_files(folder: Path, files: Mapping[str, bytes], *, replace: bool = False) -> None:
    """Write files as one folder that appears whole or not at all; the errors are those of `write_folder`."""
    _expect_place(folder, replace)
    new, old = (folder.with_name(f".{folder.name}.{word}.tmp") for word in ("new", "old"))
    placed = False
    try:
        remove_temporary(folder.parent, folder.name)
        new.mkdir(parents=True)
        for name, data in files.items():
            _write_synced(new / name, data)
        sync_folder(new)
        if folder.exists():
            os.rename(folder, old)
        os.rename(new, folder)
        placed = True
        sync_folder(folder.parent)
    except OSError as error:
        shutil.rmtree(folder if placed else new, ignore_errors=True)
        if old.exists():
            os.rename(old, folder)
        raise OutputError(
            f"cannot write {folder}: {error.strerror}; it is as it was before"
        ) from error
    shutil.rmtree(old, ignore_errors=True)


def _expect_place(folder: Path, replace: bool) -> None:
    if folder.exists() and not replace:
        raise OutputError(f"{folder} exists; name another folder, or say that it may be replaced")


def remove_temporary(parent: Path, name: str = "step_*") -> None:
    """Remove what a write of `name` (a glob) that was cut off has left beside its place."""
    for stale in parent.glob(f".{name}.old.tmp"):
        whole = parent / stale.name.removeprefix(".").removesuffix(".old.tmp")
        if not whole.exists():  # cut off between the two renames of a replacement
            os.rename(stale, whole)
    for stale in parent.glob(f".{name}.*.tmp"):
        shutil.rmtree(stale)


def _packed(contents: Mapping[str, Any]) -> dict[str, bytes]:
    """The bytes of every file, the same for the same content, and of the manifest, which is the last."""
    files = {}
    for name, content in contents.items():
        if name.endswith(".safetensors"):
            # cloned, because safetensors refuses tensors that share memory (tied weights)
            whole = {key: t.detach().cpu().contiguous().clone() for key, t in content.items()}
            files[name] = safetensors.torch.save(whole)
        else:
            files[name] = _dump(content)
    manifest = {
        "format": FORMAT,
        "audiovae": __version__,
        "torch": torch.__version__,
        "files": {n: {"bytes": len(data), "sha256": _sha256(data)} for n, data in files.items()},
    }
    return files | {MANIFEST: _dump(manifest | {"digest": _sha256(_dump(manifest))})}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DamagedError(f"{path} is missing, although {MANIFEST} lists it") from None
    except OSError as error:  # what cannot be read now may be whole
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None


def _dump(values: Any) -> bytes:
    return (json.dumps(values, indent=1, sort_keys=True) + "\n").encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write_synced(path: Path, data: bytes) -> None:
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
