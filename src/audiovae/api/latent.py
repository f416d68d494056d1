"""A latent and its file: the numbers, and what is needed to bring the sound back.

The file is one safetensors file with the tensor "z" and everything else as text in its header, so that it can be
looked at without its model and refuses to be decoded by another one.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, get_type_hints

import safetensors
import safetensors.torch
from torch import Tensor

from audiovae.audio.io import expect_free, shown
from audiovae.errors import LatentError
from audiovae.models import Autoencoder
from audiovae.paths import replacing

FORMAT = 1  # raised when an older audiovae could no longer read the file
SUFFIX = ".safetensors"


class Latent(NamedTuple):
    """A sound as a model sees it."""

    z: Tensor  # [D, F] float32; [P, D, F] if each of P channels was encoded alone
    sample_rate: int  # of the model, Hz
    channels: int  # of the model
    length: int  # samples at the model's rate
    model_hash: str  # of the model that made it; empty if that was never saved
    kind: str  # its family
    source_sample_rate: int  # of the sound that was encoded, Hz
    source_length: int  # samples of each of its channels
    source_channels: int

    @property
    def seconds(self) -> float:
        """How long the sound is."""
        return self.source_length / self.source_sample_rate

    def describe(self) -> str:
        """One line for people."""
        *_, latent_dim, frames = self.z.shape
        return (
            f"{frames} frames of {latent_dim} numbers for {self.seconds:.2f} s of sound "
            f"({frames / self.seconds:.1f} a second)"
        )


def write_latent(path: str | Path, latent: Latent, *, force: bool = False) -> None:
    """Write a latent file, whole or not at all.

    Raises OutputError if it exists (unless `force`), LatentError if its name does not end in .safetensors.
    """
    path = Path(path)
    expect_latent_name(path)
    expect_free(path, force=force)
    header = {name: str(value) for name, value in latent._asdict().items() if name != "z"}
    header = {"format": str(FORMAT), **header}
    with replacing(path) as temporary:
        z = latent.z.detach().cpu().contiguous()
        safetensors.torch.save_file({"z": z}, temporary, metadata=header)


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
                if name != "z"
            }
            latent = Latent(z=file.get_tensor("z"), **fields)
    except FileNotFoundError:
        raise LatentError(f"there is no file {name}") from None
    except OSError as error:
        raise LatentError(f"cannot read {name}: {error.strerror or error}") from None
    except (safetensors.SafetensorError, KeyError, ValueError):
        raise LatentError(
            f"{name} is not a latent file, or is damaged; `audiovae encode MODEL IN {SUFFIX[1:]}` writes one"
        ) from None
    if latent.z.ndim not in (2, 3) or not latent.z.isfinite().all():
        raise LatentError(f"{name} is damaged: its numbers are not a finite [D, F]")
    return latent


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


def hash_of(model: Autoencoder) -> str:
    """The model's hash as its files have it; empty for a model that was not loaded from files."""
    return model.model_hash or ""
