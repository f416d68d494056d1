"""New sounds: drawn from what a model knows, or on the way from one sound to another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import torch
from torch import Tensor

from audiovae import latents
from audiovae.api.opening import at_work, open_source
from audiovae.api.parameters import (
    AnyModel,
    AnySound,
    ArrayRate,
    Device,
    Force,
    Precision,
    Seed,
    Subtype,
    Threads,
)
from audiovae.api.passage import encoded
from audiovae.api.shell import Shell
from audiovae.audio.io import FORMATS, Sound, expect_free, write
from audiovae.audio.resample import resampled_length
from audiovae.errors import ConfigError, LatentError
from audiovae.models import Autoencoder
from audiovae.nn.noise import generators
from audiovae.streaming import decode_blocks

SAMPLE_SECONDS = 3600  # the longest sound that is drawn: it is held in memory

Outputs = Annotated[
    str | Path | None,
    Shell(Path, "A sound file for all, one after another, or a folder for one file each.", True),
]
Prior = Annotated[
    Literal["aggregate", "standard"],
    Shell(
        Literal["aggregate", "standard"],
        "Draw from what the latents of the training data look like, or from N(0, I).",
    ),
]


def sample(
    model: AnyModel,
    *,
    out: Outputs = None,
    n: Annotated[int, Shell(int, "How many sounds.")] = 1,
    seconds: Annotated[float, Shell(float, "How long each is.")] = 4.0,
    seed: Seed = 0,
    temperature: Annotated[float, Shell(float, "Spread around the mean; 1 is the prior's.")] = 1.0,
    prior: Prior = "aggregate",
    subtype: Subtype = None,
    force: Force = False,
    device: Device = "auto",
    threads: Threads = None,
    precision: Precision = "fp32",
) -> list[Sound]:
    """Draw new sounds from a model's prior.

    "aggregate" is the Gaussian with the mean, the covariance and the correlation over time of the latents of the
    training data, "standard" is N(0, I). The same seed gives the same sounds, whatever n is.
    """
    if n < 1 or not 0 < seconds <= SAMPLE_SECONDS or not 0 <= temperature < math.inf:
        raise ConfigError(
            f"n is at least 1, seconds above 0 and up to {SAMPLE_SECONDS}, temperature from 0 on; "
            f"got {n}, {seconds} and {temperature}"
        )
    targets = _targets(out, n, force)
    with at_work(model, device, threads, precision) as opened:
        if opened.codebook_sizes:
            raise LatentError(
                "the model's latent is codes, which have no Gaussian prior to draw from; sample from a token model "
                "that learned them (tokenise, then train --model token_transformer)"
            )
        statistics = opened.statistics if prior == "aggregate" else None
        if prior == "aggregate" and statistics is None:
            raise LatentError(
                "the model has no statistics of its latents, which training stores; --prior standard needs none"
            )
        length = max(1, round(seconds * opened.sample_rate))
        z = latents.sample_prior(
            opened.latent_dim,
            opened.frames_of(length),
            generators=generators(seed, items=n),
            temperature=temperature,
            statistics=statistics,
        )
        sounds = [_sound(opened, item, length) for item in z]
    _write_all(targets, sounds, subtype, force)
    return sounds


def interpolate(
    model: AnyModel,
    a: AnySound,
    b: AnySound,
    *,
    out: Outputs = None,
    steps: Annotated[int, Shell(int, "How many sounds, the two ends among them.")] = 8,
    spherical: Annotated[bool, Shell(bool, "Keep the norm: turn from one to the other.")] = False,
    sample_rate: ArrayRate = None,
    subtype: Subtype = None,
    force: Force = False,
    device: Device = "auto",
    threads: Threads = None,
    precision: Precision = "fp32",
) -> list[Sound]:
    """Walk from one sound to another through the latent space.

    The first of the steps is a's reconstruction, the last is b's; between them the length changes too. They have the
    model's rate and channels.
    """
    if steps < 2:
        raise ConfigError(f"steps must be at least 2, the two ends, got {steps}")
    targets = _targets(out, steps, force)
    sources = [open_source(sound, sample_rate) for sound in (a, b)]
    with at_work(model, device, threads, precision) as opened:
        first, last = (encoded(opened, source)[None] for source in sources)  # [1, D, F] each
        rate = opened.sample_rate
        lengths = [resampled_length(s.frames, s.sample_rate, rate) for s in sources]
        path: Literal["linear", "spherical"] = "spherical" if spherical else "linear"
        sounds = []
        for share in torch.linspace(0, 1, steps, dtype=torch.float64).tolist():
            z = latents.interpolate(first, last, share, path=path)[0]
            length = round((1 - share) * lengths[0] + share * lengths[1])
            sounds.append(_sound(opened, z, min(length, z.shape[-1] * opened.hop_length)))
    _write_all(targets, sounds, subtype, force)
    return sounds


def _sound(model: Autoencoder, z: Tensor, length: int) -> Sound:
    """What a latent [D, F] sounds like, as the model has it."""
    blocks = decode_blocks(model, [z], length=length)
    return Sound(torch.cat(list(blocks), dim=1), model.sample_rate)


def _targets(out: str | Path | None, count: int, force: bool) -> list[Path]:
    """Where `count` sounds go: nowhere, all to one file, or each to its file in a folder."""
    if out is None:
        return []
    path = Path(out)
    expect_free(path, force=force)
    if path.suffix.lower() in FORMATS:
        return [path]
    if path.suffix:
        raise ConfigError(
            f"{path} is neither a folder nor a sound file; {', '.join(FORMATS)} are written"
        )
    digits = len(str(count))
    return [path / f"{number:0{digits}}.wav" for number in range(1, count + 1)]


def _write_all(
    targets: Sequence[Path], sounds: Sequence[Sound], subtype: str | None, force: bool
) -> None:
    """Write the sounds to as many files, or one after another to the only one."""
    if len(targets) == 1:
        joined = torch.cat([sound.samples for sound in sounds], dim=1)
        sounds = [Sound(joined, sounds[0].sample_rate)]
    for target, sound in zip(targets, sounds, strict=False):
        target.parent.mkdir(parents=True, exist_ok=True)
        write(target, sound.samples, sound.sample_rate, subtype=subtype, force=force)
