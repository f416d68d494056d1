"""Token sequences as a data set: files of the codes [K, F] that a discrete model, the codec, made of sounds.

A token file is one safetensors file with the tensor "codes" and a header that names the codec by its hash.  All of
them are held in memory, an hour of the codes of most codecs being a few megabytes.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Literal, NamedTuple

import safetensors
import safetensors.torch
import torch
from pydantic import Field
from torch import Tensor

from audiovae.audio.opening import shown
from audiovae.data.base import Batch, DataSettings, stack
from audiovae.errors import DataError
from audiovae.nn.noise import mix
from audiovae.paths import replacing

FORMAT = 1  # raised when an older audiovae could no longer read the file
SUFFIX = ".tokens"
CROPS = 0x746F6B66  # sets these draws apart from others that are seeded by (seed, step, item)
VALID_SHARE = 0.1
PADDING = -1  # past the end of a file that is shorter than a crop


class TokenSpec(NamedTuple):
    """What a model needs its tokens to be."""

    codebook_sizes: tuple[int, ...]  # of each of the K codebooks
    token_rate: float  # frames per second
    multiple_of: int = 1  # frames that a crop is rounded up to: the model's block
    codec: str | None = None  # hash of the discrete model whose codes they are

    def crop_frames(self, seconds: float) -> int:
        """Frames in a crop of so many seconds, rounded up to the multiple."""
        frames = max(1, round(seconds * self.token_rate))
        return -(-frames // self.multiple_of) * self.multiple_of


class TokenSettings(DataSettings):
    """The part that every kind of token data has."""


class TokensData(TokenSettings):
    """A folder with token files in it, at any depth, as `audiovae tokenise` writes them."""

    kind: Literal["tokens"] = "tokens"
    path: str  # the folder
    segment_seconds: float = Field(4.0, gt=0, le=600)
    valid_crops: int = Field(32, ge=1)  # at most


class TokenFile(NamedTuple):
    """The codes of a sound, and what made them."""

    codes: Tensor  # [K, F] int64
    codebook_sizes: tuple[int, ...]
    codec: str  # hash of the discrete model


class Stretch(NamedTuple):
    """Codes that crops may come from."""

    name: str
    codes: Tensor  # [K, F]
    start: int = 0  # of its first frame in the file


def write_tokens(path: Path, tokens: TokenFile) -> None:
    """Write a token file, whole or not at all."""
    header = {
        "format": str(FORMAT),
        "codec": tokens.codec,
        "codebook_sizes": ",".join(map(str, tokens.codebook_sizes)),
    }
    kind = torch.int16 if max(tokens.codebook_sizes) <= 1 << 15 else torch.int32
    with replacing(path) as temporary:
        codes = tokens.codes.to("cpu", kind).contiguous()
        safetensors.torch.save_file({"codes": codes}, temporary, metadata=header)


def read_tokens(path: Path) -> TokenFile:
    """Read a token file.  Raises DataError if it is not one, damaged or of a newer format."""
    name = shown(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if int(header["format"]) > FORMAT:
                raise DataError(
                    f"{name} has format {header['format']}, this audiovae reads up to {FORMAT}; update audiovae"
                )
            sizes = tuple(int(size) for size in header["codebook_sizes"].split(","))
            codes = file.get_tensor("codes").long()
            limits = torch.tensor(sizes)[:, None]
            if codes.ndim != 2 or len(codes) != len(sizes) or not (0 <= codes).all():
                raise ValueError
            if codes.shape[1] == 0 or not (codes < limits).all():
                raise ValueError
            return TokenFile(codes, sizes, header["codec"])
    except OSError as error:
        raise DataError(f"cannot read {name}: {error.strerror or error}") from None
    except (safetensors.SafetensorError, KeyError, ValueError):
        raise DataError(
            f"{name} is not a token file, or is damaged; `audiovae tokenise` writes one"
        ) from None


def open_token_files(config: TokensData, spec: TokenSpec) -> TokenDataset:
    """Read the token files below a folder.

    Raises DataError if there is none, or if one holds the codes of another codec than the model's: both are named.
    """
    folder = Path(config.path)
    paths = sorted(folder.rglob(f"*{SUFFIX}"))
    if not paths:
        raise DataError(
            f"there is no file *{SUFFIX} in {shown(folder)}; `audiovae tokenise CODEC SOUNDS {shown(folder)}` writes them"
        )
    stretches = []
    for path in paths:
        tokens = read_tokens(path)
        if tokens.codec != spec.codec:
            raise DataError(
                f"{shown(path)} holds the codes of the codec {tokens.codec[:12]}, the model's codec is "
                f"{spec.codec[:12] if spec.codec else 'none: set model.codec'}; tokenise the sounds with that one"
            )
        if tokens.codebook_sizes != spec.codebook_sizes:
            raise DataError(
                f"{shown(path)} has codebooks of {tokens.codebook_sizes}, the model has {spec.codebook_sizes}"
            )
        stretches.append(Stretch(str(path.relative_to(folder)), tokens.codes))
    return TokenDataset(config, spec, stretches)


class TokenDataset:
    """Crops x [B, K, F] of codes; a crop depends on (seed, step, item) and on nothing else."""

    def __init__(self, config: TokensData, spec: TokenSpec, files: list[Stretch]) -> None:
        self.config, self.spec = config, spec
        self.length = spec.crop_frames(config.segment_seconds)  # F
        files = sorted(files, key=lambda file: _sha256(file.codes))
        self.hashes = [_sha256(file.codes) for file in files]
        self.train, self.valid = _split(files)
        self.ends = list(itertools.accumulate(file.codes.shape[1] for file in self.train))

    @property
    def fingerprint(self) -> str:
        """A hash of the codes and of the settings that shape a crop; names are no part."""
        shape = self.config.model_dump_json(exclude={"path"})
        content = " ".join(self.hashes)
        text = f"{FORMAT} {content} {shape} {self.spec.codec} {self.length}"
        return hashlib.sha256(text.encode()).hexdigest()

    def train_batch(self, seed: int, step: int, items: range) -> Batch:
        """The items of a step: long files come more often."""
        return stack([self._item(Random(mix(CROPS, seed, step, item))) for item in items])

    def valid_batches(self, batch_size: int) -> Iterator[Batch]:
        """The validation crops, side by side over the validation files, evenly chosen."""
        starts = [
            (file, start)
            for file in self.valid
            for start in range(0, file.codes.shape[1], self.length)
        ]
        count = min(self.config.valid_crops, len(starts))
        chosen = [starts[(2 * k + 1) * len(starts) // (2 * count)] for k in range(count)]
        for first in range(0, count, batch_size):
            yield stack([self._cut(*at) for at in chosen[first : first + batch_size]])

    def describe(self) -> str:
        """One line for people: how many files, how long, how they are split."""
        seconds = [
            sum(file.codes.shape[1] for file in side) / self.spec.token_rate
            for side in (self.train, self.valid)
        ]
        return (
            f"{len(self.hashes)} token files, {seconds[0] / 60:.1f} minutes to train on and "
            f"{seconds[1] / 60:.1f} to validate on"
        )

    def _item(self, rng: Random) -> Batch:
        place = bisect.bisect_right(self.ends, rng.random() * self.ends[-1])
        file = self.train[min(place, len(self.train) - 1)]
        room = max(0, file.codes.shape[1] - self.length)
        return self._cut(file, rng.randint(0, room))

    def _cut(self, file: Stretch, start: int) -> Batch:
        """One crop as a batch of one, padded past the end."""
        codes = file.codes[:, start : start + self.length]
        x = torch.nn.functional.pad(codes, (0, self.length - codes.shape[1]), value=PADDING)
        mask = None if codes.shape[1] == self.length else (x[:1] >= 0)
        seconds = (file.start + start) / self.spec.token_rate
        return Batch(x[None], mask, {}, (f"{file.name}@{seconds:.3f}",))


def _split(files: list[Stretch]) -> tuple[list[Stretch], list[Stretch]]:
    """A tenth of the files, in the order of their hashes, is to validate on; of a single file its last tenth."""
    if len(files) > 1:
        held = max(1, round(VALID_SHARE * len(files)))
        return files[held:], files[:held]
    name, codes, _ = files[0]
    border = codes.shape[1] - max(1, round(VALID_SHARE * codes.shape[1]))
    if border < 1:
        raise DataError(f"{shown(name)}, the only token file, has 1 frame; more are needed")
    return [Stretch(name, codes[:, :border])], [Stretch(name, codes[:, border:], border)]


def _sha256(codes: Tensor) -> str:
    return hashlib.sha256(codes.numpy().tobytes()).hexdigest()
