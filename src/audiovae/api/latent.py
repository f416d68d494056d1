"""A latent and its file: the numbers, and what is needed to bring the sound back.

The file is one safetensors file with the tensor "z", or the packed codes of each level as "codes.0", "codes.1", ..., and
everything else as text in its header, so that it can be looked at without its model and refuses to be decoded by
another one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from audiovae.api.packing import pack, unpack
from audiovae.audio.io import expect_free, shown
from audiovae.errors import LatentError, OutputError
from audiovae.models import Autoencoder
from audiovae.paths import replacing

FORMAT = 1  # raised when an older audiovae could no longer read the file
SUFFIX = ".safetensors"
SEGMENT_OVERLAP = 0.02  # of EnCodec's segments at most; published rates leave it out
Sizes = tuple[tuple[int, ...], ...]  # how many codes each codebook of each level has, coarse first


class Latent(NamedTuple):
    """A sound as a model sees it."""

    z: (
        Tensor | None
    )  # [D, F] float32; [P, D, F] if each of P channels was encoded alone; None: codes
    sample_rate: int  # of the model, Hz
    channels: int  # of the model
    length: int  # samples at the model's rate
    model_hash: str  # of the model that made it; empty if that was never saved
    kind: str  # its family
    source_sample_rate: int  # of the sound that was encoded, Hz
    source_length: int  # samples of each of its channels
    source_channels: int

    codes: tuple[Tensor, ...] = ()  # [K, F] or [P, K, F] int64 for each level, coarse first
    codebook_sizes: Sizes = ()  # of those codes
    side_levels: int = 0  # how many of the first levels are side information and always kept

    @property
    def seconds(self) -> float:
        """How long the sound is."""
        return self.source_length / self.source_sample_rate

    @property
    def bits_per_second(self) -> float:
        """The nominal rate of the codes, log2 of the codebook's size for each; 0 for a continuous latent."""
        return sum(
            codes[..., 0, :].numel() * math.log2(size) / self.seconds
            for codes, sizes in zip(self.codes, self.codebook_sizes, strict=True)
            for size in sizes
        )

    def limited(self, n_codebooks: int | None = None, kbps: float | None = None) -> Latent:
        """The latent with its first codebooks only, coarse levels first: as many, or as many as this rate allows.

        Side information counts neither as codebooks nor into the rate, nor does the overlap of segments that have it:
        so it is in the published bandwidths. Raises LatentError if that is none, or more than there are, or if the
        latent is continuous.
        """
        if n_codebooks is None and kbps is None:
            return self
        if not self.codes:
            raise LatentError("a continuous latent has no codebooks to choose from")
        levels = list(zip(self.codes, self.codebook_sizes, strict=True))
        kept, levels = levels[: self.side_levels], levels[self.side_levels :]
        costs = [  # of full frames, as nominal rates are: the last one may be nearly empty
            max(codes[..., 0, 1:].numel(), 1) * math.log2(size) / self.seconds / 1000
            for codes, sizes in levels
            for size in sizes
        ]
        if n_codebooks is not None and not 1 <= n_codebooks <= len(costs):
            raise LatentError(f"there are {len(costs)} codebooks, n_codebooks was {n_codebooks}")
        left = len(costs) if n_codebooks is None else n_codebooks
        slack = SEGMENT_OVERLAP if self.side_levels else 1e-9
        while kbps is not None and sum(costs[:left]) > kbps * (1 + slack) and left:
            left -= 1
        if left == 0:
            raise LatentError(
                f"the first codebook alone takes {costs[0]:.3g} kbit/s, kbps was {kbps}"
            )
        for codes, sizes in levels:
            count = min(left, len(sizes))
            left -= count
            if count:
                kept.append((codes[..., :count, :], sizes[:count]))
        codes_kept, sizes_kept = zip(*kept, strict=True)
        return self._replace(codes=codes_kept, codebook_sizes=sizes_kept)

    def describe(self) -> str:
        """One line for people."""
        if self.codes:
            counts = " + ".join(f"{c.shape[-1]} x {c.shape[-2]}" for c in self.codes)
            return (
                f"{counts} codes for {self.seconds:.2f} s of sound "
                f"({self.bits_per_second / 1000:.2f} kbit/s)"
            )
        assert self.z is not None
        *_, latent_dim, frames = self.z.shape
        return (
            f"{frames} frames of {latent_dim} numbers for {self.seconds:.2f} s of sound "
            f"({frames / self.seconds:.1f} a second)"
        )


NUMBERS = ("z", "codes", "codebook_sizes")  # the fields that are not plain text in the header


def write_latent(path: str | Path, latent: Latent, *, force: bool = False) -> None:
    """Write a latent file, whole or not at all.

    Raises OutputError if it exists (unless `force`) or the disk refuses, LatentError if its name does not end in .safetensors.
    """
    path = Path(path)
    expect_latent_name(path)
    expect_free(path, force=force)
    header = {name: str(value) for name, value in latent._asdict().items() if name not in NUMBERS}
    header = {"format": str(FORMAT), **header}
    tensors = {}
    if latent.z is not None:
        tensors["z"] = latent.z.detach().cpu().contiguous()
    if latent.codes:
        header["codebook_sizes"] = json.dumps(latent.codebook_sizes)
        header["code_shapes"] = json.dumps([list(codes.shape) for codes in latent.codes])
    for level, (codes, sizes) in enumerate(zip(latent.codes, latent.codebook_sizes, strict=True)):
        packed = [pack(each.cpu(), sizes) for each in (codes if codes.ndim == 3 else codes[None])]
        tensors[f"codes.{level}"] = torch.cat(packed)
    data = safetensors.torch.save(tensors, metadata=header)
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise OutputError(f"cannot write {shown(path)}: {error.strerror}") from error


def read_latent(path: str | Path) -> Latent:
    """Read a latent file.

    Raises LatentError if it is not there, damaged, of a newer format or not a latent.
    """
    name = shown(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if int(header["format"]) > FORMAT:
                raise LatentError(
                    f"{name} has format {header['format']}, this audiovae reads up to {FORMAT}; update audiovae"
                )
            fields = {
                name: kind(header[name])
                for name, kind in get_type_hints(Latent).items()
                if name not in NUMBERS and (name in header or name not in Latent._field_defaults)
            }
            z = file.get_tensor("z") if "z" in file.keys() else None
            latent = Latent(z=z, **fields, **(_codes(file, header) if z is None else {}))
    except FileNotFoundError:
        raise LatentError(f"there is no file {name}") from None
    except OSError as error:
        raise LatentError(f"cannot read {name}: {error.strerror or error}") from None
    except (safetensors.SafetensorError, KeyError, ValueError):
        raise LatentError(
            f"{name} is not a latent file, or is damaged; `audiovae encode MODEL IN {SUFFIX[1:]}` writes one"
        ) from None
    if latent.z is not None and (latent.z.ndim not in (2, 3) or not latent.z.isfinite().all()):
        raise LatentError(f"{name} is damaged: its numbers are not a finite [D, F]")
    return latent


def _codes(file: Any, header: dict[str, str]) -> dict[str, Any]:
    """The codes of a file, unpacked, and the sizes of their codebooks."""
    sizes: Sizes = tuple(tuple(level) for level in json.loads(header["codebook_sizes"]))
    shapes = json.loads(header["code_shapes"])
    levels = zip(sizes, shapes, strict=True)
    codes = tuple(
        _unpacked(file.get_tensor(f"codes.{level}"), of, shape)
        for level, (of, shape) in enumerate(levels)
    )
    return {"codes": codes, "codebook_sizes": sizes}


def _unpacked(packed: Tensor, sizes: tuple[int, ...], shape: list[int]) -> Tensor:
    """Codes [K, F] or [P, K, F] of one level."""
    *parts, _, frames = shape
    if not parts:
        return unpack(packed, sizes, frames)
    return torch.stack([unpack(part, sizes, frames) for part in packed.chunk(parts[0])])


def expect_latent_name(path: Path) -> None:
    """Raise LatentError unless the name ends in .safetensors."""
    if path.suffix.lower() != SUFFIX:
        raise LatentError(f"{shown(path)}: a latent is written as {SUFFIX}, not as '{path.suffix}'")


def expect_made_by(latent: Latent, model: Autoencoder) -> None:
    """Raise LatentError if another model made the latent; the message names both."""
    made, here = latent.model_hash, hash_of(model)
    if made != here:
        raise LatentError(
            f"the latent was made by the model {made[:12] or 'that was never saved'}, this one is "
            f"{here[:12] or 'not saved'}; only the model that made a latent can decode it"
        )


def codes_of(latent: Latent, model: Autoencoder) -> Iterator[tuple[Tensor, ...]]:
    """The codes of each channel that was encoded alone, or of the sound, with a batch: [1, K, F] a level.

    Raises LatentError if the model has other codebooks.
    """
    for kept, own in zip(latent.codebook_sizes, model.codebook_sizes, strict=False):
        if kept != own[: len(kept)]:
            raise LatentError(f"the latent has codebooks of {kept} codes, the model's have {own}")
    if latent.codes[0].ndim == 2:
        yield tuple(codes[None] for codes in latent.codes)
    else:
        yield from zip(*(codes.split(1) for codes in latent.codes), strict=True)


def hash_of(model: Autoencoder) -> str:
    """The model's hash as its files have it; empty for a model that was not loaded from files."""
    return model.model_hash or ""
