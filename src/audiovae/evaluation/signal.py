"""Figures that compare samples and spectra: the distances of `audio.compare` as plain numbers.

A loss and a metric of one name are one function; this file only calls it without a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from audiovae.audio.compare import mel_distance, si_sdr, stft_distance

SIGNAL_METRICS: Mapping[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "mel": mel_distance,  # lower is better
    "stft": stft_distance,  # lower is better
    "si_sdr": si_sdr,  # dB, higher is better
}


@torch.no_grad()
def signal_score(name: str, reference: Tensor, estimate: Tensor, sample_rate: int) -> float:
    """One of SIGNAL_METRICS of [B, C, T] in [-1, 1], averaged over batch and channels."""
    return float(SIGNAL_METRICS[name](estimate.float(), reference.float(), sample_rate))
