"""What a model is and does, in numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor

from audiovae.api.choices import data_config, model_config
from audiovae.api.latent import hash_of
from audiovae.api.opening import at_work
from audiovae.api.parameters import AnyModel, DataChoice, Device, Threads
from audiovae.api.shell import Choice, Shell
from audiovae.checkpoint import load
from audiovae.config import Config
from audiovae.data import open_dataset
from audiovae.errors import ConfigError, LatentError
from audiovae.models import PRESETS, Autoencoder, build
from audiovae.models.base import UNLIMITED
from audiovae.training.diagnostics import (
    ACTIVE_VARIANCE,
    CodebookUse,
    CodesMeter,
    CollapseAlarm,
    LatentMeter,
)


class Info(NamedTuple):
    """The figures of a model; times in samples at its rate unless the name says otherwise."""

    kind: str
    parameters: int
    sample_rate: int  # Hz
    channels: int
    latent_dim: int  # numbers in a latent frame
    frame_rate: float  # latent frames per second
    codebooks: tuple[int, ...]  # codes in each, coarse first; empty if the latent is continuous
    kbps: float | None  # kbit/s of all codebooks' codes; None if the latent is continuous
    compression_in_time: int  # samples (of each channel) to a latent frame
    compression_in_elements: float  # numbers in the sound to numbers in the latent
    receptive_field: int  # input samples that can change one output sample; may be UNLIMITED
    delay: int  # input samples beyond a moment that its output waits for
    model_hash: str  # empty for a model that was not loaded from files

    def describe(self) -> str:
        """A table for people."""

        def milliseconds(samples: int) -> str:
            if samples >= UNLIMITED:
                return "unlimited"
            return f"{samples:,} samples ({1000 * samples / self.sample_rate:,.1f} ms)"

        rows = {
            "model": f"{self.kind} {self.model_hash[:12]}".strip(),
            "parameters": f"{self.parameters:,}",
            "sound": f"{self.channels} channel(s) at {self.sample_rate:,} Hz",
            "latent": f"{self.latent_dim} numbers, {self.frame_rate:.2f} times a second",
            "codes": self._codes(),
            "compression in time": f"{self.compression_in_time:,} : 1",
            "compression in elements": f"{self.compression_in_elements:.1f} : 1",
            "receptive field": milliseconds(self.receptive_field),
            "delay": milliseconds(self.delay),
        }
        return "\n".join(f"{name:24} {value}" for name, value in rows.items() if value)

    def _codes(self) -> str:
        """The codebooks, alike ones counted, and their rate; nothing for a continuous latent."""
        books = [f"{len(list(alike))} x {size:,}" for size, alike in groupby(self.codebooks)]
        return f"{' + '.join(books)}, {self.kbps:.2f} kbit/s" if books else ""


def info(
    model: Annotated[
        Autoencoder | str | Path | Mapping[str, Any] | Config,
        Shell(
            Choice,
            "A run or model folder (with a slash), a built-in name, or a preset; --model.NAME VALUE sets its options.",
        ),
    ],
) -> Info:
    """Say what a model or a preset is, in numbers."""
    opened = _described(model)
    levels = list(zip(opened.codebook_sizes, opened.code_rates, strict=True))[opened.side_levels :]
    bits = sum(rate * math.log2(size) for sizes, rate in levels for size in sizes)
    return Info(
        kind=opened.config.model_dump()["kind"],
        parameters=sum(p.numel() for p in opened.parameters()),
        sample_rate=opened.sample_rate,
        channels=opened.channels,
        latent_dim=opened.latent_dim,
        frame_rate=opened.frame_rate,
        codebooks=tuple(size for sizes, _ in levels for size in sizes),
        kbps=bits / 1000 if levels else None,
        compression_in_time=opened.hop_length,
        compression_in_elements=opened.channels * opened.hop_length / opened.latent_dim,
        receptive_field=opened.receptive_field,
        delay=opened.delay,
        model_hash=hash_of(opened),
    )


def _described(model: Any) -> Autoencoder:
    """The model of a name; that of a preset has no weights and takes no memory."""
    if isinstance(model, Autoencoder):
        return model
    if isinstance(model, Path) or (isinstance(model, str) and model not in PRESETS):
        return load(model)
    with torch.device("meta"):
        return build(model_config(model))


class Diagnosis(NamedTuple):
    """What the latent of a model carries on some data."""

    kl: Tensor  # [D], nats per frame
    mean_variance: Tensor  # [D], variance of the posterior mean
    active_units: int  # dimensions with a mean_variance above 0.01
    bits_per_second: float
    alarms: tuple[str, ...]  # what is wrong and what to do; empty if nothing is

    def describe(self) -> str:
        """A table for people: the dimensions by what they carry, then the sums."""
        order = self.kl.argsort(descending=True).tolist()
        rows = [
            f"{dim:9}  {self.kl[dim] / math.log(2):14.4f}  {self.mean_variance[dim]:13.4f}"
            + ("" if self.mean_variance[dim] > ACTIVE_VARIANCE else "  inactive")
            for dim in order
        ]
        return "\n".join(
            [
                "dimension  bits per frame  var. of mean",
                *rows,
                f"{self.active_units} of {len(order)} dimensions are active, "
                f"{self.bits_per_second:,.0f} bits per second",
                *self.alarms,
            ]
        )


class CodesDiagnosis(NamedTuple):
    """How the codebooks of a model are used on some data."""

    codebooks: tuple[CodebookUse, ...]  # coarse first
    bits_per_second: float  # of packed codes
    entropy_bits_per_second: float  # behind an entropy coder
    alarms: tuple[str, ...]  # what is wrong and what to do; empty if nothing is

    def describe(self) -> str:
        """A table for people: the codebooks in their order, then the rates."""
        rows = [
            f"{book.name:>8}  {len(book.counts):5}  {book.used:4}  {book.perplexity:10.1f}  {book.entropy:12.2f}"
            for book in self.codebooks
        ]
        return "\n".join(
            [
                "codebook  codes  used  perplexity  entropy, bits",
                *rows,
                f"{self.bits_per_second:,.0f} bits per second, {self.entropy_bits_per_second:,.0f} entropy-coded",
                *self.alarms,
            ]
        )


def diagnose(
    model: AnyModel,
    data: DataChoice,
    *,
    clips: Annotated[int, Shell(int, "How many validation clips to look at, at most.")] = 64,
    device: Device = "auto",
    threads: Threads = None,
) -> Diagnosis | CodesDiagnosis:
    """Measure what each latent dimension carries on some data.

    On the validation clips of the data: the KL of each dimension and how much its mean varies, or how each codebook is
    used; and whether the latent has collapsed.
    """
    if clips < 1:
        raise ConfigError(f"clips must be at least 1, got {clips}")
    with at_work(model, device, threads) as opened:
        dataset = open_dataset(
            data_config(data),
            sample_rate=opened.sample_rate,
            channels=opened.channels,
            multiple_of=opened.hop_length,
        )
        codes = CodesMeter(opened.codebook_sizes, opened.side_levels)
        meter = LatentMeter(opened.latent_dim, opened.frame_rate)
        place = next(opened.parameters()).device
        for batch in dataset.valid_batches(1):
            bottled = opened.encode(batch.x.to(place))
            if bottled.moments is not None:
                meter.update(*bottled.moments)
            elif bottled.codes:
                codes.update(bottled.codes, batch.x.shape[-1] / opened.sample_rate)
            else:
                raise LatentError("the model has neither a Gaussian latent nor codes to diagnose")
            clips -= 1
            if clips == 0:
                break
    alarm = CollapseAlarm(patience=1)
    if opened.codebook_sizes:
        return CodesDiagnosis(
            codebooks=tuple(codes.codebooks),
            bits_per_second=codes.bits_per_second,
            entropy_bits_per_second=codes.entropy_bits_per_second,
            alarms=tuple(alarm.update(None, codes)),
        )
    statistics = meter.statistics()
    return Diagnosis(
        kl=statistics.kl,
        mean_variance=statistics.mean_variance,
        active_units=meter.active_units,
        bits_per_second=meter.bits_per_second,
        alarms=tuple(alarm.update(None, meter)),
    )
