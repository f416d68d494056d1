"""What verbs take, said once: the type in Python, the word on the command line, and what it is for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from torch import Tensor

from audiovae.api.latent import Latent
from audiovae.api.shell import Choice, Shell
from audiovae.audio.io import Sound
from audiovae.config import Config
from audiovae.models import Autoencoder

Array = Tensor | np.ndarray[Any, Any]  # [C, T] or [T], floats in [-1, 1]
AnyModel = Annotated[
    Autoencoder | str | Path,
    Shell(str, "A run folder or a model folder (with a slash), or a built-in name."),
]
AnySound = Annotated[Array | Sound | str | Path, Shell(Path, "A sound file.")]
AnyLatent = Annotated[Latent | str | Path, Shell(Path, "A file that `encode` wrote.")]
ModelChoice = Annotated[
    str | Mapping[str, Any] | Config | None,
    Shell(Choice, "A preset; --model.NAME VALUE sets its arguments and fields, as --model.size 2."),
]
DataChoice = Annotated[
    str | Mapping[str, Any] | Config | None,
    Shell(Choice, "A folder (with a slash), notes or synth; --data.NAME VALUE sets its fields."),
]
Output = Annotated[str | Path | None, Shell(Path, "The file to write.", required=True)]
ArrayRate = Annotated[int | None, Shell(None)]  # Hz, of an array; a file says its own
PerChannel = Annotated[bool, Shell(bool, "Treat each channel as a sound of its own.")]
Codebooks = Annotated[int | None, Shell(int, "Use only so many codebooks, the coarse ones first.")]
Kbps = Annotated[
    float | None, Shell(float, "Use as many codebooks as fit into this rate, in kbit a second.")
]
Inverse = Annotated[
    Literal["learned", "griffin_lim"] | None,
    Shell(
        Literal["learned", "griffin_lim"],
        "How a spectrogram VAE makes sound; it knows its own way.",
    ),
]
Subtype = Annotated[
    str | None,
    Shell(str, "Coding of the samples: PCM_16, PCM_24 (the default), FLOAT, ..."),
]
Force = Annotated[bool, Shell(bool, "Replace what exists.")]
Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"],
    Shell(
        Literal["auto", "cpu", "cuda", "mps"],
        "Where to compute; auto takes the best that is there.",
    ),
]
Precision = Annotated[
    Literal["fp32", "bf16"],
    Shell(
        Literal["fp32", "bf16"],
        "bf16 is faster on processors that multiply it, and rounds to two or three digits.",
    ),
]
Threads = Annotated[int | None, Shell(int, "Processor threads to compute with.")]
Seed = Annotated[int, Shell(int, "The same number draws the same sounds.")]
Quiet = Annotated[bool, Shell(bool, "Print nothing but errors.")]
