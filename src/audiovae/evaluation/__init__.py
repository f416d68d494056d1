"""Evaluation: sounds and models -> numbers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from audiovae.errors import AudioError, ConfigError, did_you_mean
from audiovae.evaluation.perceptual import PERCEPTUAL_METRICS, perceptual_score
from audiovae.evaluation.signal import SIGNAL_METRICS, signal_score

__all__ = ["PERCEPTUAL_METRICS", "SIGNAL_METRICS", "score"]


def score(
    reference: Tensor,
    estimate: Tensor,
    sample_rate: int,
    metrics: Sequence[str] = tuple(SIGNAL_METRICS),
) -> dict[str, float]:
    """Compare an estimate with its reference, [C, T] or [B, C, T] in [-1, 1]; averaged over the batch.

    The metrics are keys of SIGNAL_METRICS and PERCEPTUAL_METRICS.
    Raises ConfigError for an unknown metric, AudioError if the shapes differ or a metric cannot judge the sounds,
    MissingPackageError if a metric needs the extra `perceptual`.
    """
    known = {*SIGNAL_METRICS, *PERCEPTUAL_METRICS}
    if unknown := [name for name in metrics if name not in known]:
        raise ConfigError(f"there is no metric '{unknown[0]}'{did_you_mean(unknown[0], known)}")
    if reference.shape != estimate.shape or reference.ndim not in (2, 3):
        raise AudioError(
            "reference and estimate are two sounds of one shape, [channels, samples] or [batch, channels, samples], "
            f"got {tuple(reference.shape)} and {tuple(estimate.shape)}"
        )
    if reference.ndim == 2:
        reference, estimate = reference[None], estimate[None]
    return {
        name: (signal_score if name in SIGNAL_METRICS else perceptual_score)(
            name, reference, estimate, sample_rate
        )
        for name in metrics
    }
