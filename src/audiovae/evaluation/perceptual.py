"""Figures that predict what listeners would say, from packages of the extra `perceptual`.

    visqol         ViSQOL 3 in audio mode, at 48 kHz: MOS-LQO from 1 to 4.7           (Chinen 2020)
    visqol_speech  ViSQOL 3 in speech mode, at 16 kHz, with its lattice mapper: MOS-LQO from 1 to 5
    zimtohrli      Zimtohrli's estimate of a mean opinion score, at 48 kHz            (Alakuijala 2025)
    pesq           PESQ wide band, at 16 kHz: MOS-LQO from 1 to 4.6                   (ITU-T P.862.2)
    stoi           short-time objective intelligibility, at 10 kHz: from 0 to 1       (Taal 2011)

All of them hear in mono: the channels are averaged first.  Higher is better.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from audiovae.audio.resample import resample
from audiovae.errors import AudioError, MissingPackageError

Samples = npt.NDArray[np.float32]  # [T]

SHORTEST = 1.0  # seconds
SILENT = 1e-5  # peak: -100 dBFS

_PACKAGES = {
    "visqol": "visqol-python",
    "ai_edge_litert.interpreter": "ai-edge-litert",
    "zimtohrli": "zimtohrli",
    "pesq": "pesq",
    "pystoi": "pystoi",
}


def perceptual_score(name: str, reference: Tensor, estimate: Tensor, sample_rate: int) -> float:
    """One of PERCEPTUAL_METRICS of [B, C, T] in [-1, 1], averaged over the batch.

    Raises MissingPackageError if its package is not installed, AudioError if it cannot judge these sounds: they are
    shorter than a second, or silent.
    """
    rate, judge = PERCEPTUAL_METRICS[name]
    scores = []
    for pair in zip(reference, estimate, strict=True):
        ours, theirs = (_mono(sound, sample_rate, rate) for sound in pair)
        # asked all the same, the packages answer with NaN, an IndexError or (Zimtohrli below 0.1 s) a dead process
        if len(ours) < SHORTEST * rate or min(np.abs(ours).max(), np.abs(theirs).max()) < SILENT:
            raise AudioError(_refusal(name, len(ours) / rate, "too short or silent"))
        try:
            scores.append(judge(ours, theirs))
        except (ValueError, RuntimeError, ArithmeticError, LookupError) as error:
            raise AudioError(_refusal(name, len(ours) / rate, str(error))) from error
    return float(np.mean(scores))


def _refusal(name: str, seconds: float, why: str) -> str:
    return (
        f"{name} cannot judge this sound of {seconds:.2f} s: {why}; it needs two sounds of at least {SHORTEST:g} s "
        "that are not silent"
    )


def _mono(sound: Tensor, sample_rate: int, rate: int) -> Samples:
    mono = sound.detach().cpu().float().mean(0, keepdim=True)  # [1, T]
    samples: Samples = resample(mono, sample_rate, rate)[0].numpy()
    return samples


def _visqol(ours: Samples, theirs: Samples) -> float:
    return _visqol_in("audio", ours, theirs, 48_000)


def _visqol_speech(ours: Samples, theirs: Samples) -> float:
    # without this runtime the package would fall back to a polynomial, which has another scale
    _optional(
        "ai_edge_litert.interpreter", "speech ViSQOL without its lattice mapper has another scale"
    )
    return _visqol_in("speech", ours, theirs, 16_000)


def _visqol_in(mode: str, ours: Samples, theirs: Samples, rate: int) -> float:
    result = _visqol_api(mode).measure_from_arrays(ours.astype(float), theirs.astype(float), rate)
    return float(result.moslqo)


@cache
def _visqol_api(mode: str) -> Any:
    api = _optional("visqol").VisqolApi()
    api.create(mode=mode, use_lattice_model=mode == "speech")
    return api


def _zimtohrli(ours: Samples, theirs: Samples) -> float:
    return float(_optional("zimtohrli").mos_from_signals(ours, theirs))


def _pesq(ours: Samples, theirs: Samples) -> float:
    return float(_optional("pesq").pesq(16_000, ours, theirs, "wb"))


def _stoi(ours: Samples, theirs: Samples) -> float:
    return float(_optional("pystoi").stoi(ours, theirs, 10_000))


def _optional(module: str, why: str = "") -> ModuleType:
    """Import a module of the extra, or say what to install."""
    try:
        return importlib.import_module(module)
    except ImportError:
        reason = f" ({why})" if why else ""
        raise MissingPackageError(
            f"this metric needs the package {_PACKAGES[module]}{reason}; run pip install 'audiovae[perceptual]', "
            "which compiles libsvm and pesq and so needs a C and C++ compiler such as gcc"
        ) from None


PERCEPTUAL_METRICS: Mapping[str, tuple[int, Callable[[Samples, Samples], float]]] = {
    "visqol": (48_000, _visqol),
    "visqol_speech": (16_000, _visqol_speech),
    "zimtohrli": (48_000, _zimtohrli),
    "pesq": (16_000, _pesq),
    "stoi": (10_000, _stoi),
}
