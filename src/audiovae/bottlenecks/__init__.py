"""Bottlenecks: [B, W, F] -> one result type, `Bottled`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import Discriminator

from audiovae.bottlenecks.base import Bottled, Bottleneck
from audiovae.bottlenecks.fsq import FSQ, FSQConfig
from audiovae.bottlenecks.gaussian import Gaussian, GaussianConfig
from audiovae.bottlenecks.rvq import RVQ, RVQConfig
from audiovae.bottlenecks.vq import VQ, VQConfig

__all__ = [
    "BOTTLENECKS",
    "FSQ",
    "RVQ",
    "VQ",
    "AnyBottleneckConfig",
    "Bottled",
    "Bottleneck",
    "FSQConfig",
    "Gaussian",
    "GaussianConfig",
    "RVQConfig",
    "VQConfig",
    "build_bottleneck",
    "input_width",
]

AnyBottleneckConfig = Annotated[
    GaussianConfig | VQConfig | RVQConfig | FSQConfig, Discriminator("kind")
]

BOTTLENECKS: dict[str, Callable[..., Bottleneck]] = {
    "gaussian": Gaussian,
    "vq": VQ,
    "rvq": RVQ,
    "fsq": FSQ,
}


def build_bottleneck(
    config: AnyBottleneckConfig, width: int | None, frame_rate: float
) -> Bottleneck:
    """The bottleneck of a config, for features of this width (None: they are the bottleneck's own input already)."""
    return BOTTLENECKS[config.kind](config, width, frame_rate)


def input_width(config: AnyBottleneckConfig) -> int:
    """Channels that a bottleneck takes where it has no projection (width None): a normal's mean and scale, else D."""
    return config.latent_dim * (2 if isinstance(config, GaussianConfig) else 1)
