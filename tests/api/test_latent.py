"""Latent files: what is in them, and what is refused."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch

from audiovae.api.latent import Latent, read_latent, write_latent
from audiovae.errors import LatentError, OutputError


def latent(*shape: int) -> Latent:
    """A latent of one second, with numbers that tell if they moved."""
    z = torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)
    return Latent(z, 44_100, 2, 44_100, "c0ffee", "spec_frame", 48_000, 48_000, 1)


@pytest.mark.parametrize("shape", [(8, 43), (3, 8, 43)])
def test_a_latent_comes_back_as_it_was(tmp_path: Path, shape: tuple[int, ...]) -> None:
    written = latent(*shape)
    write_latent(tmp_path / "a.safetensors", written)
    back = read_latent(tmp_path / "a.safetensors")
    assert torch.equal(back.z, written.z)
    assert back[1:] == written[1:]


def test_the_file_is_plain_safetensors_with_text_around(tmp_path: Path) -> None:
    write_latent(tmp_path / "a.safetensors", latent(8, 43))
    with safetensors.safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert list(file.keys()) == ["z"]
        header = file.metadata()
    assert header["format"] == "1"
    assert header["model_hash"] == "c0ffee"
    assert (header["sample_rate"], header["channels"], header["length"]) == ("44100", "2", "44100")


def test_it_says_what_it_is_in_a_line() -> None:
    line = "43 frames of 8 numbers for 1.00 s of sound (43.0 a second)"
    assert latent(8, 43).describe() == line


def test_a_file_that_exists_is_kept_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists; --force replaces it"):
        write_latent(path, latent(8, 43))
    assert path.read_bytes() == b"mine"
    write_latent(path, latent(8, 43), force=True)
    assert read_latent(path).length == 44_100


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    write_latent(path, latent())
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"cannot write .*a.safetensors: No space left"):
        write_latent(path, latent(), force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
    assert path.read_bytes() == before


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LatentError, match=r"a latent is written as \.safetensors, not as '\.npy'"):
        write_latent(tmp_path / "a.npy", latent(8, 43))


def save(path: Path, z: torch.Tensor, **header: str) -> None:
    whole = {k: str(v) for k, v in latent(8, 43)._asdict().items() if k != "z"} | {"format": "1"}
    safetensors.torch.save_file({"z": z}, path, metadata=whole | header)


@pytest.mark.parametrize(
    ("z", "header", "message"),
    [
        (torch.zeros(8, 4), {"format": "2"}, "has format 2, .* reads up to 1; update audiovae"),
        (torch.zeros(8, 4), {"length": "many"}, "is not a latent file, or is damaged"),
        (torch.full((8, 4), torch.nan), {}, r"its numbers are not a finite \[D, F\]"),
        (torch.zeros(8), {}, r"its numbers are not a finite \[D, F\]"),
    ],
)
def test_a_wrong_file_is_refused(
    tmp_path: Path, z: torch.Tensor, header: dict[str, str], message: str
) -> None:
    save(tmp_path / "a.safetensors", z, **header)
    with pytest.raises(LatentError, match=message):
        read_latent(tmp_path / "a.safetensors")


def test_a_file_from_before_side_information_is_read(tmp_path: Path) -> None:
    """The field came later; a file without it has none."""
    save(tmp_path / "a.safetensors", torch.ones(8, 43))
    with safetensors.safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        header = {k: v for k, v in file.metadata().items() if k != "side_levels"}
    safetensors.torch.save_file({"z": torch.ones(8, 43)}, tmp_path / "a.safetensors", header)
    back = read_latent(tmp_path / "a.safetensors")
    assert (back.side_levels, back.length) == (0, 44_100)


def test_what_is_no_latent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LatentError, match="there is no file"):
        read_latent(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    safetensors.torch.save_file({"w": torch.zeros(3)}, tmp_path / "weights.safetensors")
    save(tmp_path / "cut.safetensors", torch.zeros(8, 43))
    data = (tmp_path / "cut.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[:-100])
    for name in ("text", "weights", "cut"):
        with pytest.raises(LatentError, match="is not a latent file, or is damaged"):
            read_latent(tmp_path / f"{name}.safetensors")
    with pytest.raises(LatentError, match="cannot read"):
        read_latent(tmp_path)
