"""What a model is and does, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch

from audiovae.api.choices import model_config
from audiovae.api.latent import hash_of
from audiovae.api.opening import open_model
from audiovae.api.shell import Choice, Shell
from audiovae.config import Config
from audiovae.models import PRESETS, Autoencoder, build


class Info(NamedTuple):
    """The figures of a model; times in samples at its rate unless the name says otherwise."""

    kind: str
    parameters: int
    sample_rate: int  # Hz
    channels: int
    latent_dim: int  # numbers in a latent frame
    frame_rate: float  # latent frames per second
    compression_in_time: int  # samples (of each channel) to a latent frame
    compression_in_elements: float  # numbers in the sound to numbers in the latent
    receptive_field: int  # input samples that can change one output sample
    delay: int  # input samples beyond a moment that its output waits for
    model_hash: str  # empty for a model that was not loaded from files

    def describe(self) -> str:
        """A table for people."""

        def milliseconds(samples: int) -> str:
            return f"{samples:,} samples ({1000 * samples / self.sample_rate:,.1f} ms)"

        rows = {
            "model": f"{self.kind} {self.model_hash[:12]}".strip(),
            "parameters": f"{self.parameters:,}",
            "sound": f"{self.channels} channel(s) at {self.sample_rate:,} Hz",
            "latent": f"{self.latent_dim} numbers, {self.frame_rate:.2f} times a second",
            "compression in time": f"{self.compression_in_time:,} : 1",
            "compression in elements": f"{self.compression_in_elements:.1f} : 1",
            "receptive field": milliseconds(self.receptive_field),
            "delay": milliseconds(self.delay),
        }
        return "\n".join(f"{name:24} {value}" for name, value in rows.items())


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
    return Info(
        kind=opened.config.model_dump()["kind"],
        parameters=sum(p.numel() for p in opened.parameters()),
        sample_rate=opened.sample_rate,
        channels=opened.channels,
        latent_dim=opened.latent_dim,
        frame_rate=opened.frame_rate,
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
        return open_model(model, "cpu")
    with torch.device("meta"):
        return build(model_config(model))
