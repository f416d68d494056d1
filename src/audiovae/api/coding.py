"""Sounds to latents and back: encode, decode, reconstruct.

Each takes and gives files as well as arrays. A file that is there is refused before anything is computed, and what is
written is whole or not there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import overload

import torch
from torch import Tensor

from audiovae.api.folders import for_each, sounds_in
from audiovae.api.latent import (
    Latent,
    codes_of,
    expect_latent_name,
    expect_made_by,
    hash_of,
    read_latent,
    write_latent,
)
from audiovae.api.opening import Source, at_work, inverted_by, open_source
from audiovae.api.parameters import (
    AnyLatent,
    AnyModel,
    AnySound,
    ArrayRate,
    Codebooks,
    Device,
    Force,
    Inverse,
    Kbps,
    Output,
    PerChannel,
    Precision,
    Subtype,
    Threads,
)
from audiovae.api.passage import coded, decoded, encoded, reconstructed
from audiovae.audio.io import BlockWriter, Sound, expect_free, shown
from audiovae.audio.resample import resampled_length
from audiovae.errors import OutputError
from audiovae.models import Autoencoder

LOSSLESS = {".wav", ".flac", ".aiff", ".aif"}
log = logging.getLogger("audiovae")


def encode(
    model: AnyModel,
    sound: AnySound,
    out: Output = None,
    *,
    sample_rate: ArrayRate = None,
    per_channel: PerChannel = False,
    n_codebooks: Codebooks = None,
    kbps: Kbps = None,
    force: Force = False,
    device: Device = "auto",
    threads: Threads = None,
    precision: Precision = "fp32",
) -> Latent:
    """Turn a sound into a latent.

    The latent is the posterior's mean, or the codes. A sound of another rate or number of channels is brought to the
    model's, and the latent remembers its own.
    """
    if out is not None:
        expect_latent_name(Path(out))
        expect_free(Path(out), force=force)
    with at_work(model, device, threads, precision) as opened:
        source = open_source(sound, sample_rate, per_channel)
        latent = _latent(opened, source, per_channel).limited(n_codebooks, kbps)
    if out is not None:
        write_latent(out, latent, force=force)
    return latent


@overload
def decode(
    model: AnyModel, latent: AnyLatent, out: None = None, *,
    n_codebooks: int | None = None, kbps: float | None = None, inverse: Inverse = None,
    device: Device = "auto", threads: Threads = None,
    precision: Precision = "fp32",
) -> Sound: ...  # fmt: skip
@overload
def decode(
    model: AnyModel, latent: AnyLatent, out: str | Path, *,
    n_codebooks: int | None = None, kbps: float | None = None, inverse: Inverse = None,
    subtype: Subtype = None, force: Force = False, device: Device = "auto", threads: Threads = None,
    precision: Precision = "fp32",
) -> Path: ...  # fmt: skip
def decode(
    model: AnyModel,
    latent: AnyLatent,
    out: Output = None,
    *,
    n_codebooks: Codebooks = None,
    kbps: Kbps = None,
    inverse: Inverse = None,
    subtype: Subtype = None,
    force: Force = False,
    device: Device = "auto",
    threads: Threads = None,
    precision: Precision = "fp32",
) -> Sound | Path:
    """Turn a latent back into a sound.

    It has the rate, the channels and the length of the sound that was encoded. Of codes any number of the coarse ones
    will do. Without `out` the sound is returned, with `out` it is written and the path is returned.
    """
    if out is not None:
        expect_free(Path(out), force=force)
    if not isinstance(latent, Latent):
        latent = read_latent(latent)
    with at_work(model, device, threads, precision) as opened:
        expect_made_by(latent, opened)
        source = _source_of(latent)
        z = _numbers(latent.limited(n_codebooks, kbps), opened)
        with inverted_by(opened, inverse):
            blocks = decoded(opened, z, latent.length, source)
            return _deliver(blocks, source, out, subtype, force)


@overload
def reconstruct(
    model: AnyModel, sound: AnySound, out: None = None, *, sample_rate: int | None = None,
    per_channel: PerChannel = False, n_codebooks: int | None = None, kbps: float | None = None,
    inverse: Inverse = None, device: Device = "auto", threads: Threads = None,
    precision: Precision = "fp32",
) -> Sound: ...  # fmt: skip
@overload
def reconstruct(
    model: AnyModel, sound: AnySound, out: str | Path, *, sample_rate: int | None = None,
    per_channel: PerChannel = False, n_codebooks: int | None = None, kbps: float | None = None,
    inverse: Inverse = None, subtype: Subtype = None, force: Force = False, device: Device = "auto",
    threads: Threads = None, precision: Precision = "fp32",
) -> Path: ...  # fmt: skip
def reconstruct(
    model: AnyModel,
    sound: AnySound,
    out: Output = None,
    *,
    sample_rate: ArrayRate = None,
    per_channel: PerChannel = False,
    n_codebooks: Codebooks = None,
    kbps: Kbps = None,
    inverse: Inverse = None,
    subtype: Subtype = None,
    force: Force = False,
    device: Device = "auto",
    threads: Threads = None,
    precision: Precision = "fp32",
) -> Sound | Path:
    """Send a sound, or a folder of sounds, through a model and back.

    The result has the rate, the channels and the length of what went in. Without `out` it is returned, with `out` it
    is written and the path is returned; a folder needs `out`, a folder too.
    """

    def through(opened: Autoencoder, source: Source) -> Iterator[Tensor]:
        if n_codebooks is None and kbps is None:
            return reconstructed(opened, source, per_channel)
        latent = _latent(opened, source, per_channel).limited(n_codebooks, kbps)
        return decoded(opened, _numbers(latent, opened), latent.length, source)

    if isinstance(sound, str | Path) and Path(sound).is_dir():
        if out is None:
            raise OutputError(f"{shown(sound)} is a folder; name the folder to write to")
        with at_work(model, device, threads, precision) as opened, inverted_by(opened, inverse):
            return _folder(
                lambda source: through(opened, source),
                Path(sound),
                Path(out),
                per_channel,
                subtype,
                force,
            )
    if out is not None:
        expect_free(Path(out), force=force)
    source = open_source(sound, sample_rate, per_channel)
    with at_work(model, device, threads, precision) as opened, inverted_by(opened, inverse):
        return _deliver(through(opened, source), source, out, subtype, force)


def _folder(
    through: Callable[[Source], Iterator[Tensor]],
    folder: Path,
    out: Path,
    per_channel: bool,
    subtype: str | None,
    force: bool,
) -> Path:
    """Send every sound below a folder through; what cannot be used is named at the end, the rest is done."""
    files = sounds_in(folder)
    if out.resolve().is_relative_to(folder.resolve()):
        raise OutputError(f"{shown(out)} lies in {shown(folder)}, which is read; write beside it")
    expect_free(out, force=force)

    def write(file: Path) -> None:
        relative = file.relative_to(folder)
        target = out / (relative if file.suffix.lower() in LOSSLESS else f"{relative}.wav")
        target.parent.mkdir(parents=True, exist_ok=True)
        source = open_source(file, per_channel=per_channel)
        _deliver(through(source), source, target, subtype, force)

    for_each(files, "reconstruct", write)
    return out


def _deliver(
    blocks: Iterator[Tensor],
    source: Source,
    out: str | Path | None,
    subtype: str | None,
    force: bool,
) -> Sound | Path:
    """Write the blocks, or return them as one sound."""
    if out is None:
        return Sound(torch.cat(list(blocks), dim=1), source.sample_rate)
    with BlockWriter(
        out, source.sample_rate, source.channels, subtype=subtype, force=force
    ) as writer:
        for block in blocks:
            writer.write(block)
    if writer.clipped:
        log.warning(
            "%s: %d samples above full scale were clipped; --subtype FLOAT keeps them",
            shown(out),
            writer.clipped,
        )
    return Path(out)


def _latent(model: Autoencoder, source: Source, per_channel: bool) -> Latent:
    """A source as the model sees it, the whole of it."""
    discrete = bool(model.codebook_sizes)
    return Latent(
        z=None if discrete else encoded(model, source, per_channel),
        sample_rate=model.sample_rate,
        channels=model.channels,
        length=resampled_length(source.frames, source.sample_rate, model.sample_rate),
        model_hash=hash_of(model),
        kind=model.config.model_dump()["kind"],
        source_sample_rate=source.sample_rate,
        source_length=source.frames,
        source_channels=source.channels,
        codes=coded(model, source, per_channel) if discrete else (),
        codebook_sizes=model.codebook_sizes,
        side_levels=model.side_levels,
    )


def _numbers(latent: Latent, model: Autoencoder) -> Tensor:
    """What the model decodes: z [D, F], or [P, D, F] of P channels alone."""
    if latent.z is not None:
        return latent.z
    device = next(model.parameters()).device
    parts = [
        model.from_codes([codes.to(device) for codes in part])[0]
        for part in codes_of(latent, model)
    ]
    return torch.stack(parts) if latent.codes[0].ndim == 3 else parts[0]


def _source_of(latent: Latent) -> Source:
    """What the encoded sound was; its samples are gone."""
    return Source(
        latent.source_sample_rate, latent.source_channels, latent.source_length, lambda: iter(())
    )
