"""DAC: the Descript audio codec (Kumar et al. 2023, arXiv 2306.06546).

    encoder   stages that double the width (nn/waveform_stages.py) with Snake
    codes     a row of codebooks of 8 numbers, the nearest by angle (bottlenecks/rvq.py)
    decoder   stages that halve a width of its own; tanh

At size 4 the presets are the published nets, weight for weight (interop/dac.py proves it), but for two things: with the
odd stride of 24 and 16 kHz the decoder gives as many samples as came in, where the original loses 8; and what a codebook
leaves for the next is detached, so that every layer's commitment term has its whole gradient.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator
from torch import Tensor

from audiovae.bottlenecks import AnyBottleneckConfig, RVQConfig, build_bottleneck, input_width
from audiovae.errors import ConfigError
from audiovae.models.base import ModelConfig
from audiovae.models.waveform import WaveformAutoencoder
from audiovae.nn.snake import Snake
from audiovae.nn.waveform_stages import WaveformDecoder, WaveformEncoder

# by size; 4 is the published one: widths of encoder and decoder, codes in a codebook
SIZES = ((2, 32, 64), (8, 192, 1024), (16, 384, 1024), (32, 768, 1024), (64, 1536, 1024))


def dac_bottleneck(
    latent_dim: int, n_codebooks: int, codebook_size: int = 1024, codebook_dim: int = 8
) -> RVQConfig:
    """A row of codebooks as DAC has it: learned by gradient from random codes, each in a small space of its own."""
    return RVQConfig(
        latent_dim=latent_dim,
        n_codebooks=n_codebooks,
        codebook_size=codebook_size,
        codebook_dim=codebook_dim,
        normalise=True,
        update="gradient",
        kmeans_iterations=0,
        revive_below=0.0,
    )


class DACConfig(ModelConfig):
    """What a DAC is made of."""

    kind: Literal["dac"] = "dac"
    channels: int = Field(1, ge=1, le=8)  # C
    bottleneck: AnyBottleneckConfig = dac_bottleneck(1024, n_codebooks=9)
    width: int = Field(64, ge=1)  # the encoder's beside the waveform; doubles with each stride
    decoder_width: int = Field(
        1536, ge=1
    )  # the decoder's beside the latent; halves with each stride
    strides: tuple[Annotated[int, Field(ge=2)], ...] = Field((2, 4, 8, 8), min_length=1)

    @model_validator(mode="after")
    def _decoder_can_be_halved(self) -> DACConfig:
        if self.decoder_width % 2 ** len(self.strides):
            raise ValueError(
                f"decoder_width is halved by each of the {len(self.strides)} strides: it must be a "
                f"multiple of {2 ** len(self.strides)}, got {self.decoder_width}"
            )
        return self

    @property
    def hop_length(self) -> int:
        """Samples that one latent frame stands for."""
        return math.prod(self.strides)

    @property
    def encoder_widths(self) -> tuple[int, ...]:
        """Channels beside the waveform and after each stage of the encoder."""
        return tuple(self.width << stage for stage in range(len(self.strides) + 1))

    @property
    def decoder_widths(self) -> tuple[int, ...]:
        """Channels beside the latent and after each stage of the decoder."""
        return tuple(self.decoder_width >> stage for stage in range(len(self.strides) + 1))


def dac_44k(size: int = 4, *, n_codebooks: int = 9) -> DACConfig:
    """DAC at 44.1 kHz mono, one latent frame for 512 samples, 7.75 kbit/s with 9 codebooks.

    The widths halve with each size: 77, 19, 4.9, 1.3 and 0.06 M weights. Size 4 is the published net, 0 the test model.
    Raises ConfigError for a size that is not 0 to 4.
    """
    return _preset(44_100, (2, 4, 8, 8), size, n_codebooks)


def dac_24k(size: int = 4, *, n_codebooks: int = 32) -> DACConfig:
    """DAC at 24 kHz mono, one latent frame for 320 samples, 24 kbit/s with 32 codebooks.

    The sizes are those of `dac_44k`. Raises ConfigError for a size that is not 0 to 4.
    """
    return _preset(24_000, (2, 4, 5, 8), size, n_codebooks)


def dac_16k(size: int = 4, *, n_codebooks: int = 12) -> DACConfig:
    """DAC at 16 kHz mono, one latent frame for 320 samples, 6 kbit/s with 12 codebooks.

    The sizes are those of `dac_44k`. Raises ConfigError for a size that is not 0 to 4.
    """
    return _preset(16_000, (2, 4, 5, 8), size, n_codebooks)


class DAC(WaveformAutoencoder):
    """The Descript audio codec."""

    config: DACConfig

    def __init__(self, config: DACConfig) -> None:
        super().__init__(config)
        bottleneck, strides = config.bottleneck, config.strides
        self.encoder = WaveformEncoder(
            config.channels, config.encoder_widths, strides, input_width(bottleneck), Snake
        )
        self.bottleneck = build_bottleneck(bottleneck, None, config.frame_rate)
        self.decoder = WaveformDecoder(
            bottleneck.latent_dim,
            config.decoder_widths,
            strides[::-1],
            config.channels,
            Snake,
            bias=True,
        )

    def synthesise(self, z: Tensor) -> Tensor:
        """z [B, D, F] -> x_hat [B, C, F * hop_length] in [-1, 1]."""
        return super().synthesise(z).tanh()


def _preset(sample_rate: int, strides: tuple[int, ...], size: int, n_codebooks: int) -> DACConfig:
    if not 0 <= size < len(SIZES):
        raise ConfigError(f"size must be 0 to 4, got {size}; 4 is the published net")
    width, decoder_width, codebook_size = SIZES[size]
    return DACConfig(
        sample_rate=sample_rate,
        bottleneck=dac_bottleneck(width << len(strides), n_codebooks, codebook_size),
        width=width,
        decoder_width=decoder_width,
        strides=strides,
    )
