"""Oobleck: the convolutional waveform VAE of Stable Audio (Evans et al. 2024, arXiv 2404.10301).

    encoder   stages that widen (nn/waveform_stages.py) with SnakeBeta, to mean and scale
    latent    z = mean + (softplus(scale) + 1e-4) eps
    decoder   the stages' mirror; the last conv without bias, no tanh

At size 4 it is the published net, weight for weight (interop/oobleck.py proves it).
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from audiovae.bottlenecks import (
    AnyBottleneckConfig,
    GaussianConfig,
    build_bottleneck,
    input_width,
)
from audiovae.errors import ConfigError
from audiovae.models.base import ModelConfig
from audiovae.models.waveform import WaveformAutoencoder
from audiovae.nn.snake import SnakeBeta
from audiovae.nn.waveform_stages import WaveformDecoder, WaveformEncoder

WIDTHS = (3, 16, 32, 64, 128)  # by size; 4 is the published one


class OobleckConfig(ModelConfig):
    """What an Oobleck is made of."""

    kind: Literal["oobleck"] = "oobleck"
    bottleneck: AnyBottleneckConfig = GaussianConfig(parametrisation="softplus")
    width: int = Field(128, ge=1)  # channels beside the waveform
    decoder_width: int | None = Field(None, ge=1)  # the decoder's; None: the same
    strides: tuple[Annotated[int, Field(ge=2)], ...] = Field((2, 4, 4, 8, 8), min_length=1)
    multiples: tuple[Annotated[int, Field(ge=1)], ...] = (1, 2, 4, 8, 16)  # of width, by stage

    @model_validator(mode="after")
    def _one_multiple_a_stride(self) -> OobleckConfig:
        if len(self.multiples) != len(self.strides):
            raise ValueError(
                f"each stride needs its multiple, got {len(self.strides)} strides and "
                f"{len(self.multiples)} multiples"
            )
        return self

    @property
    def hop_length(self) -> int:
        """Samples that one latent frame stands for."""
        return math.prod(self.strides)

    @property
    def encoder_widths(self) -> tuple[int, ...]:
        """Channels beside the waveform and after each stage of the encoder."""
        return tuple(self.width * multiple for multiple in (1, *self.multiples))

    @property
    def decoder_widths(self) -> tuple[int, ...]:
        """Channels beside the latent and after each stage of the decoder."""
        width = self.decoder_width or self.width
        return tuple(width * multiple for multiple in (*self.multiples[::-1], 1))


def oobleck(
    size: int = 4, *, sample_rate: int = 44_100, channels: int = 2, latent_dim: int | None = None
) -> OobleckConfig:
    """Oobleck, one latent frame for 2048 samples.  Size 4 is the published net, 0 the test model.

    The width halves with each size: 156, 39, 10, 2.6 and 0.09 M weights. Latents: 64, at size 0 8.
    Raises ConfigError for a size that is not 0 to 4.
    """
    if not 0 <= size < len(WIDTHS):
        raise ConfigError(f"size must be 0 to 4, got {size}; 4 is the published net")
    if latent_dim is None:
        latent_dim = 64 if size else 8
    return OobleckConfig(
        sample_rate=sample_rate,
        channels=channels,
        bottleneck=GaussianConfig(latent_dim=latent_dim, parametrisation="softplus"),
        width=WIDTHS[size],
    )


class Oobleck(WaveformAutoencoder):
    """The waveform VAE of Stable Audio."""

    config: OobleckConfig

    def __init__(self, config: OobleckConfig) -> None:
        super().__init__(config)
        latent_dim, strides = config.bottleneck.latent_dim, config.strides
        self.encoder = WaveformEncoder(
            config.channels,
            config.encoder_widths,
            strides,
            input_width(config.bottleneck),
            SnakeBeta,
        )
        self.bottleneck = build_bottleneck(config.bottleneck, None, config.frame_rate)
        self.decoder = WaveformDecoder(
            latent_dim, config.decoder_widths, strides[::-1], config.channels, SnakeBeta, bias=False
        )
