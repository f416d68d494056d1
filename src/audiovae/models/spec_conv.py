"""The spectrogram VAE: 2-D convolutions over a log-mel or log-magnitude spectrogram.

    x -> log spectrogram -> units (conv -> BatchNorm -> ReLU), the last of a stage strided -> mu, logvar
    z -> the same backwards with transposed convolutions -> log spectrogram -> sound

Two forms.  Fully convolutional (AudioLDM's latent, Liu et al. 2023): the latent of a frame is a map of channels x
frequency bins, D = their product, and a sound may have any length.  With `clip_seconds` the whole clip's map is flattened
and a linear layer makes mu and logvar of it: one latent frame is one clip, and no other length is taken.

A spectrogram holds no phase.  Back to sound leads Griffin-Lim, which needs no training, or a learned head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from audiovae.audio.log_spectrogram import LogSpectrogram, expect_no_empty_band
from audiovae.audio.transforms import window_margins
from audiovae.bottlenecks import Bottled, GaussianConfig, build_bottleneck
from audiovae.bottlenecks.gaussian import START_LOGVAR
from audiovae.errors import AudioError, ConfigError, expect_waveform
from audiovae.models.base import Autoencoder, Context, ModelConfig, Reconstruction
from audiovae.models.inverse import MIDDLE, SPREAD, GriffinLim, InverseHead
from audiovae.nn.conv import inputs_of
from audiovae.nn.spectral_stages import SpectralDecoder, SpectralEncoder, unit

Inverse = Literal["learned", "griffin_lim"]
Factor = Annotated[int, Field(ge=1, le=8)]


class SpecConvConfig(ModelConfig):
    """Everything that makes a spectrogram VAE; the preset `spec_conv` derives it from a size."""

    kind: Literal["spec_conv"] = "spec_conv"
    bottleneck: GaussianConfig = GaussianConfig(latent_dim=128)
    features: Literal["mel", "magnitude"] = "mel"
    n_mels: int = Field(128, ge=1)
    win_length: int = Field(1024, ge=4)  # samples
    frame_hop: int = Field(256, ge=2)  # samples from one frame of the spectrogram to the next
    strides: tuple[tuple[Factor, Factor], ...] = Field(
        ((2, 2), (2, 2), (2, 1), (2, 1)), min_length=1
    )  # frequency, time
    widths: tuple[Annotated[int, Field(ge=1)], ...] = (16, 32, 64, 128, 128)  # first, by stage
    depth: int = Field(1, ge=0)  # residual units of a stage
    clip_seconds: float | None = Field(None, gt=0, le=60)  # None: any length
    inverse: Inverse = "learned"
    iterations: int = Field(32, ge=0, le=1000)  # of Griffin-Lim
    head_width: int = Field(256, ge=4)  # of the learned inverse
    head_depth: int = Field(4, ge=0)

    @model_validator(mode="after")
    def _parts_fit(self) -> SpecConvConfig:
        if self.win_length % self.frame_hop or self.win_length < 2 * self.frame_hop:
            raise ValueError(
                f"win_length must be a multiple of frame_hop ({self.frame_hop}), at least twice it"
            )
        if self.grid % self.win_length:
            raise ValueError(
                f"frame_hop times the strides in time ({self.grid}) must be a multiple of win_length "
                f"({self.win_length})"
            )
        if len(self.widths) != len(self.strides) + 1:
            raise ValueError(
                f"widths are the first and one a stage, {len(self.strides) + 1} in all, "
                f"got {len(self.widths)}"
            )
        if self.features == "mel":
            expect_no_empty_band(self.sample_rate, self.win_length, self.n_mels)
        if self.clip_seconds is None and self.bottleneck.latent_dim % self.latent_bins:
            raise ValueError(
                f"latent_dim must be a multiple of the {self.latent_bins} frequency bins that the strides leave, "
                f"got {self.bottleneck.latent_dim}"
            )
        return self

    @property
    def default_objective(self) -> str:
        """Terms that need no phase; Griffin-Lim has no gradient: with it the spectrogram alone is learned."""
        return "magnitude" if self.inverse == "learned" else "spectrogram"

    @property
    def hop_length(self) -> int:
        """Samples that one latent frame stands for: in a clip model all of the clip's."""
        return (
            self.grid if self.clip_seconds is None else round(self.clip_seconds * self.sample_rate)
        )

    @property
    def time_stride(self) -> int:
        """Frames of the spectrogram that one column of the latent's map joins."""
        return math.prod(time for _, time in self.strides)

    @property
    def grid(self) -> int:
        """Samples that one column of the latent's map stands for."""
        return self.frame_hop * self.time_stride

    @property
    def n_bands(self) -> int:
        """Rows of the spectrogram, N."""
        return self.n_mels if self.features == "mel" else self.win_length // 2

    @property
    def latent_bins(self) -> int:
        """Frequency bins of the latent's map."""
        return -(-self.n_bands // math.prod(frequency for frequency, _ in self.strides))

    @property
    def clip_columns(self) -> int:
        """Columns of the latent's map that cover the clip."""
        return -(-self.hop_length // self.grid)


class SpecConv(Autoencoder):
    """The spectrogram VAE.  x [B, C, T] <-> z [B, D, F]; in a clip model every frame is a clip.

    `inverse` says how sounds are made. It begins as the config's and may be set at any time: a model with a learned head
    plays by Griffin-Lim too.
    """

    config: SpecConvConfig

    def __init__(self, config: SpecConvConfig) -> None:
        super().__init__(config)
        c, latent_dim, width = config, config.bottleneck.latent_dim, config.widths[-1]
        n_mels = c.n_mels if c.features == "mel" else None
        self.bands = LogSpectrogram(c.sample_rate, c.win_length, c.frame_hop, n_mels)
        self.encoder = SpectralEncoder(c.channels, c.widths, c.strides, c.depth)
        self.map_shape = (width, c.latent_bins, c.clip_columns)
        self.moments: nn.Module
        self.unfold: nn.Module
        if c.clip_seconds is None:
            map_channels = latent_dim // c.latent_bins
            self.moments = moments = nn.Conv2d(width, 2 * map_channels, 3, padding=1)
            if moments.bias is not None and c.bottleneck.parametrisation == "logvar":
                nn.init.constant_(moments.bias[map_channels:], START_LOGVAR)
            self.bottleneck = build_bottleneck(c.bottleneck, None, c.frame_rate)
            self.unfold = unit(nn.Conv2d(map_channels, width, 3, padding=1))
        else:
            flat = math.prod(self.map_shape)
            self.moments = nn.Flatten()
            self.bottleneck = build_bottleneck(c.bottleneck, flat, c.frame_rate)
            self.unfold = nn.Linear(latent_dim, flat)
        self.decoder = SpectralDecoder(c.channels, c.widths, c.strides, c.depth)
        self.inverses = nn.ModuleDict()
        self.inverses["griffin_lim"] = GriffinLim(self.bands, c.iterations, c.time_stride)
        if c.inverse == "learned":
            head = InverseHead(self.bands, c.channels, c.head_width, c.head_depth)
            self.inverses["learned"] = head
        self._inverse: str = c.inverse

    @property
    def inverse(self) -> str:
        """How sounds are made: "griffin_lim", or "learned" if there is a head.  ConfigError if set to another."""
        return self._inverse

    @inverse.setter
    def inverse(self, name: str) -> None:
        if name not in self.inverses:
            raise ConfigError(
                f"this model's inverse is one of {', '.join(sorted(self.inverses))}, got {name!r}; "
                "a learned one comes from training with --model.inverse learned"
            )
        self._inverse = name

    def encode(
        self, x: Tensor, *, sample: bool = False, generators: Sequence[torch.Generator] = ()
    ) -> Bottled:
        """As every model's.  Raises AudioError too if a clip model gets another length than its clip's."""
        expect_waveform(x, self.channels)
        seconds = self.config.clip_seconds
        if seconds is not None and x.shape[-1] != self.hop_length:
            raise AudioError(
                f"this model takes clips of exactly {self.hop_length} samples ({seconds:g} s at {self.sample_rate} Hz), "
                f"got {x.shape[-1]}; cut or pad the sound to that length (in training: set "
                f"data.segment_seconds and data.valid_seconds to {seconds:g}), or use a model without clip_seconds"
            )
        return super().encode(x, sample=sample, generators=generators)

    def reconstruct(
        self, bottled: Bottled, x: Tensor, *, generators: Sequence[torch.Generator] = ()
    ) -> Reconstruction:
        """Also gives the term "spectrogram": the mean distance of the log spectrograms in decades; 0.05 is 1 dB."""
        bands_hat = self.spectrogram(bottled.z)
        distance = (bands_hat - self._listened(x)).abs().mean()
        x_hat = self._played(bands_hat, len(x))[..., : x.shape[-1]]
        terms = bottled.terms | {"spectrogram": distance}
        return Reconstruction(x_hat, *bottled._replace(terms=terms))

    def bottle(
        self, x: Tensor, *, sample: bool, generators: Sequence[torch.Generator] = ()
    ) -> Bottled:
        """x [B, C, T], T a multiple of hop_length -> Bottled."""
        h = self.moments(self.encoder((self._listened(x) - MIDDLE) / SPREAD))
        h = h.flatten(1, 2) if self.config.clip_seconds is None else h[..., None]
        bottled: Bottled = self.bottleneck(h, sample=sample, generators=generators)
        return bottled

    def synthesise(self, z: Tensor) -> Tensor:
        """z [B, D, F] -> x_hat [B, C, F * hop_length]."""
        return self._played(self.spectrogram(z), len(z))

    def spectrogram(self, z: Tensor) -> Tensor:
        """What the decoder gives.  z [B, D, F] -> log bands [B, C, N, frames]; of clips [B * F, C, N, frames]."""
        if self.config.clip_seconds is None:
            h = self.unfold(z.unflatten(1, (-1, self.config.latent_bins)))
        else:
            h = self.unfold(z.mT.flatten(0, 1)).unflatten(1, self.map_shape)
        bands: Tensor = self.decoder(h)[:, :, : self.config.n_bands].to(z.dtype) * SPREAD + MIDDLE
        return bands

    def _listened(self, x: Tensor) -> Tensor:
        """Log bands [B, C, N, frames] of a sound, filled up to whole columns of the latent's map."""
        bands: Tensor = self.bands(nn.functional.pad(x, (0, -x.shape[-1] % self.config.grid)))
        return bands

    def _played(self, bands: Tensor, batch: int) -> Tensor:
        """The sound [B, C, F * hop_length] of log bands; clips one after the other."""
        x: Tensor = self.inverses[self.inverse](bands)
        if self.config.clip_seconds is not None:
            x = x[..., : self.hop_length].unflatten(0, (batch, -1)).transpose(1, 2).flatten(2)
        return x

    @property
    def encoder_context(self) -> Context:
        """Samples before and after a latent frame's own that can change it; a clip stands alone."""
        c = self.config
        if c.clip_seconds is not None:
            return Context(0, 0)
        first, last = inputs_of(self.encoder, *inputs_of(self.moments, 0, 0))  # frames
        before, after = window_margins(c.win_length, c.frame_hop, causal=False)
        beyond = (last + 1) * c.frame_hop - self.hop_length
        return Context(before - first * c.frame_hop, after + beyond)

    @property
    def decoder_context(self) -> Context:
        """Latent frames before and after a frame's own that can change its samples, by the inverse that is set."""
        if self.config.clip_seconds is not None:
            return Context(0, 0)
        left, right = cast("GriffinLim | InverseHead", self.inverses[self.inverse]).margins
        columns = inputs_of(self.decoder, -left, self.config.time_stride - 1 + right)
        first, last = inputs_of(self.unfold, *columns)
        return Context(-first, last)


SIZES = {  # size -> first width, depth, head's width, head's depth
    0: (2, 0, 16, 1),  # the test model
    1: (8, 1, 128, 2),
    2: (12, 1, 192, 3),
    3: (16, 1, 256, 4),  # the default: suits two CPU cores
    4: (32, 2, 384, 6),
    5: (64, 2, 512, 8),
}


def spec_conv(
    size: int = 3,
    *,
    sample_rate: int = 44_100,
    channels: int = 2,
    latent_dim: int | None = None,
    clip_seconds: float | None = None,
    inverse: Inverse = "learned",
) -> SpecConvConfig:
    """Return the config of a spectrogram VAE, or with `clip_seconds` of one for clips of that length.

    size 0 (tests) to 5. The window is the power of two next to 46 ms, at 24 kHz 1024; without clips one latent frame
    stands for it, a map of 16 channels x 8 bins. 128 latents, at size 0 8. Raises ConfigError for another size.
    """
    if size not in SIZES:
        raise ConfigError(f"size must be one of {sorted(SIZES)}, got {size}")
    width, depth, head_width, head_depth = SIZES[size]
    time: tuple[int, ...] = (2, 2, 1, 1) if clip_seconds is None else (2, 2, 2, 2)
    if size == 0:
        time = (2, 2) if clip_seconds is None else (4, 4)
    win_length = 2 ** round(math.log2(0.0464 * sample_rate)) if size else 128
    return SpecConvConfig(
        sample_rate=sample_rate,
        channels=channels,
        bottleneck=GaussianConfig(latent_dim=latent_dim or (128 if size else 8)),
        n_mels=128 if size else 8,
        win_length=win_length,
        frame_hop=win_length // 4,
        strides=tuple((2, stride) for stride in time),
        widths=tuple(width * multiple for multiple in ((1, 2, 4, 8, 8) if size else (1, 2, 4))),
        depth=depth,
        clip_seconds=clip_seconds,
        inverse=inverse,
        head_width=head_width,
        head_depth=head_depth,
    )
