"""Bottlenecks: [B, W, F] -> one result type, `Bottled`."""

from __future__ import annotations

from collections.abc import Callable

from audiovae.bottlenecks.base import Bottled, Bottleneck
from audiovae.bottlenecks.gaussian import Gaussian, GaussianConfig

__all__ = [
    "BOTTLENECKS",
    "AnyBottleneckConfig",
    "Bottled",
    "Bottleneck",
    "Gaussian",
    "GaussianConfig",
    "build_bottleneck",
]

AnyBottleneckConfig = GaussianConfig

BOTTLENECKS: dict[str, Callable[..., Bottleneck]] = {"gaussian": Gaussian}


def build_bottleneck(
    config: AnyBottleneckConfig, width: int | None, frame_rate: float
) -> Bottleneck:
    """The bottleneck of a config, for features of this width (None: they are the bottleneck's own input already)."""
    return BOTTLENECKS[config.kind](config, width, frame_rate)
