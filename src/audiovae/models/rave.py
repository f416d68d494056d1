"""RAVE v2: a waveform VAE over PQMF bands (Caillon & Esling 2021, arXiv 2111.05011; the repository's `v2` config).

    x -> PQMF, 16 bands -> conv 7; for each ratio dilated residual units and a strided conv that widens; conv 3 -> mean, scale
    z = mean + (softplus(scale) + 1e-4) eps
    z -> conv 3; for each ratio, backwards, a transposed conv that narrows and dilated residual units
      -> conv 7 to wave and amplitude -> tanh(wave * sigmoid(amplitude) + noise) -> inverse PQMF -> x_hat

LeakyReLU 0.2 before each conv but the first ones, weight norm, no biases. The noise branch is the repository's `noise`
config: white noise in each band through short filters that a small net sets.

Encoder, decoder and filters equal those of acids-rave in the tests, for equal weights; its checkpoints are not read. Three
things differ on purpose. The sound comes a frame of bands, 16 samples, earlier: the original pads its inverse on one side
more. The noise is not drawn but hashed from the latent frame it belongs to, so that a latent has one sound,
in chunks, in batches and again tomorrow. And the PQMF's filters carry no zeros at their ends.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from audiovae.audio.pqmf import PQMF
from audiovae.bottlenecks import AnyBottleneckConfig, Bottled, GaussianConfig, build_bottleneck
from audiovae.errors import ConfigError
from audiovae.losses.published import rave_distance
from audiovae.models.base import Autoencoder, Context, ModelConfig, Reconstruction
from audiovae.nn.conv import inputs_of, same_conv

WIDTHS = (2, 24, 48, 96)  # by size; 3 is the published one
SLOPE = 0.2  # of LeakyReLU below zero
NOISE_STRIDES = (2, 2, 2)  # from the bands' rate to that of the noise filters

Even = Annotated[int, Field(ge=2, multiple_of=2)]


class RaveV2Config(ModelConfig):
    """What a RAVE v2 is made of."""

    kind: Literal["rave_v2"] = "rave_v2"
    channels: int = Field(1, ge=1, le=8)
    bottleneck: AnyBottleneckConfig = GaussianConfig(latent_dim=128, parametrisation="softplus")
    n_bands: int = Field(16, ge=2)  # of the PQMF
    attenuation: float = Field(100.0, gt=50)  # of its stop band, dB
    width: int = Field(96, ge=1)  # channels beside the bands; doubles with each ratio
    ratios: tuple[Even, ...] = Field((4, 4, 4, 2), min_length=1)
    dilations: tuple[tuple[int, ...], ...] = ((1, 3, 9), (1, 3, 9), (1, 3, 9), (1, 3))
    noise_points: int = Field(0, ge=0)  # of a noise filter's frequency response; 0: no noise
    noise_width: int = Field(128, ge=1)  # of the net that sets them

    @model_validator(mode="after")
    def _parts_fit(self) -> RaveV2Config:
        if len(self.dilations) != len(self.ratios):
            raise ValueError(
                f"each ratio needs its dilations, got {len(self.ratios)} and {len(self.dilations)}"
            )
        taps, most = 2 * (self.noise_points - 1), math.prod(NOISE_STRIDES)
        if self.noise_points and not 2 <= taps <= most:
            raise ValueError(
                f"noise_points must be 2 to {most // 2 + 1}, or 0, got {self.noise_points}"
            )
        if self.noise_points and math.prod(self.ratios) % most:
            raise ValueError(f"noise needs ratios whose product is a multiple of {most}")
        return self

    @property
    def hop_length(self) -> int:
        """Samples that one latent frame stands for."""
        return self.n_bands * math.prod(self.ratios)

    @property
    def planes(self) -> int:
        """Bands of all channels."""
        return self.channels * self.n_bands

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels beside the bands and after each ratio."""
        return tuple(self.width * 2**stage for stage in range(len(self.ratios) + 1))


def rave_v2(
    size: int = 3,
    *,
    sample_rate: int = 44_100,
    channels: int = 1,
    latent_dim: int | None = None,
    noise: bool = False,
) -> RaveV2Config:
    """RAVE v2, one latent frame for 2048 samples.  Size 3 is the published net, 0 the test model.

    The width halves with each size. `noise` adds the noise branch, as the config of that name does. 128 latents, at
    size 0 8. Raises ConfigError for a size that is not 0 to 3.
    """
    if not 0 <= size < len(WIDTHS):
        raise ConfigError(f"size must be 0 to 3, got {size}; 3 is the published net")
    if latent_dim is None:
        latent_dim = 128 if size else 8
    return RaveV2Config(
        sample_rate=sample_rate,
        channels=channels,
        bottleneck=GaussianConfig(latent_dim=latent_dim, parametrisation="softplus"),
        width=WIDTHS[size],
        noise_points=5 if noise else 0,
        noise_width=128 if size else 4,
    )


class RaveV2(Autoencoder):
    """A VAE over the bands of a PQMF."""

    config: RaveV2Config

    def __init__(self, config: RaveV2Config) -> None:
        super().__init__(config)
        self.pqmf = PQMF(config.n_bands, config.attenuation)
        self.encoder = encoder(config)
        self.bottleneck = build_bottleneck(config.bottleneck, None, config.frame_rate)
        self.decoder = decoder(config)
        self.head = same_conv(config.width, 2 * config.planes, 7, bias=False)  # wave, amplitude
        self.noise = Noise(config) if config.noise_points else None

    def bottle(
        self, x: Tensor, *, sample: bool, generators: Sequence[torch.Generator] = ()
    ) -> Bottled:
        """x [B, C, T], T a multiple of hop_length -> Bottled with F = T / hop_length frames."""
        h = self.encoder(self.pqmf(x))
        bottled: Bottled = self.bottleneck(h, sample=sample, generators=generators)
        return bottled

    def reconstruct(
        self, bottled: Bottled, x: Tensor, *, generators: Sequence[torch.Generator] = ()
    ) -> Reconstruction:
        """On request also the term "multiband": RAVE's spectral distance of the bands, before they are one sound.

        Of those frames whose whole receptive field lies in the crop, if there are any.
        """
        if "multiband" not in self.extra_terms:
            return super().reconstruct(bottled, x, generators=generators)
        bands_hat = self.bands(bottled.z)
        padded = nn.functional.pad(x, (0, -x.shape[-1] % self.hop_length))
        with torch.autocast(x.device.type, enabled=False):
            kind = torch.promote_types(bands_hat.dtype, torch.float32)
            sides = [bands_hat.to(kind), self.pqmf(padded.to(kind))]
            behind = self._samples(self.decoder_context.left) + self.encoder_context.left
            first, last = behind // self.config.n_bands, -(-(self.delay + 1) // self.config.n_bands)
            if first + last < bands_hat.shape[-1]:
                sides = [side[..., first : bands_hat.shape[-1] - last] for side in sides]
            distance = rave_distance(*sides)
        terms = bottled.terms | {"multiband": distance}
        x_hat = self.pqmf.inverse(bands_hat)[..., : x.shape[-1]]
        return Reconstruction(x_hat, *bottled._replace(terms=terms))

    def synthesise(self, z: Tensor) -> Tensor:
        """z [B, D, F] -> x_hat [B, C, F * hop_length]."""
        return self.pqmf.inverse(self.bands(z))

    def bands(self, z: Tensor) -> Tensor:
        """z [B, D, F] -> the bands of x_hat, [B, planes, F * prod(ratios)]."""
        h = self.decoder(z)
        wave, amplitude = self.head(h).chunk(2, dim=1)  # [B, planes, F * prod(ratios)] each
        bands = wave * amplitude.sigmoid()
        if self.noise is not None:
            bands = bands + self.noise(h, z)
        out: Tensor = bands.tanh()
        return out

    @property
    def encoder_context(self) -> Context:
        """Samples before the first and after the last one of a latent frame that can change it."""
        first, last = self.pqmf.samples_of(*inputs_of(self.encoder, 0, 0))
        return Context(-first, last - (self.hop_length - 1))

    @property
    def decoder_context(self) -> Context:
        """Latent frames before and after a frame that can change its hop_length samples."""
        frames = self.pqmf.frames_of(0, self.hop_length - 1)
        spans = [inputs_of(self.head, *frames)]
        if self.noise is not None:
            size = math.prod(NOISE_STRIDES)
            spans.append(inputs_of(self.noise, *(frame // size for frame in frames)))
        first, last = inputs_of(self.decoder, min(s[0] for s in spans), max(s[1] for s in spans))
        return Context(-first, last)


def encoder(config: RaveV2Config) -> nn.Sequential:
    """Bands [B, planes, F * prod(ratios)] -> mean and scale [B, 2 D, F]."""
    widths = config.widths
    layers: list[nn.Module] = [same_conv(config.planes, widths[0], 7, bias=False)]
    for stage, (ratio, dilations) in enumerate(zip(config.ratios, config.dilations, strict=True)):
        narrow, wide = widths[stage : stage + 2]
        layers += [ResidualUnit(narrow, dilation) for dilation in dilations]
        # kernel 2 r, r - 1 zeros before and r after: what is padded on one side only stands apart
        down = nn.Conv1d(narrow, wide, 2 * ratio, ratio, padding=ratio - 1, bias=False)
        layers += [nn.LeakyReLU(SLOPE), nn.ConstantPad1d((0, 1), 0.0), weight_norm(down)]
    last = same_conv(widths[-1], 2 * config.bottleneck.latent_dim, 3, bias=False)
    return nn.Sequential(*layers, nn.LeakyReLU(SLOPE), last)


def decoder(config: RaveV2Config) -> nn.Sequential:
    """z [B, D, F] -> features [B, width, F * prod(ratios)]."""
    widths = config.widths
    layers: list[nn.Module] = [same_conv(config.bottleneck.latent_dim, widths[-1], 3, bias=False)]
    for stage in reversed(range(len(config.ratios))):
        narrow, wide = widths[stage : stage + 2]
        ratio = config.ratios[stage]
        up = nn.ConvTranspose1d(wide, narrow, 2 * ratio, ratio, padding=ratio // 2, bias=False)
        layers += [nn.LeakyReLU(SLOPE), weight_norm(up)]
        layers += [ResidualUnit(narrow, dilation) for dilation in config.dilations[stage]]
    return nn.Sequential(*layers, nn.LeakyReLU(SLOPE))


class ResidualUnit(nn.Module):
    """h + conv 1(LeakyReLU(dilated conv 3(LeakyReLU(h)))).  h [B, W, F]."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.LeakyReLU(SLOPE),
            same_conv(width, width, 3, dilation=dilation, bias=False),
            nn.LeakyReLU(SLOPE),
            same_conv(width, width, 1, bias=False),
        )

    def forward(self, h: Tensor) -> Tensor:
        """Add what the branch found."""
        out: Tensor = h + self.branch(h)
        return out


class Noise(nn.Module):
    """White noise in each band, filtered anew every eight frames (Engel 2020, DDSP, sec. 3.4)."""

    def __init__(self, config: RaveV2Config) -> None:
        super().__init__()
        self.planes, self.points = config.planes, config.noise_points
        self.groups = math.prod(config.ratios) // math.prod(NOISE_STRIDES)  # in a latent frame
        hidden = [config.noise_width] * (len(NOISE_STRIDES) - 1)
        widths = [config.width, *hidden, self.planes * self.points]
        self.convs = nn.ModuleList(
            nn.Conv1d(wide, narrow, 2 * stride, stride, padding=stride, bias=False)
            for wide, narrow, stride in zip(widths, widths[1:], NOISE_STRIDES, strict=False)
        )

    def forward(self, h: Tensor, z: Tensor) -> Tensor:
        """h [B, W, frames], z [B, D, F] -> [B, planes, frames]."""
        for number, conv in enumerate(self.convs):
            h = conv(nn.functional.leaky_relu(h, SLOPE) if number else h)
            h = h[..., :-1]  # the original pads before the first frame only
        with torch.autocast(h.device.type, enabled=False):  # there is no FFT in bf16
            h = h.to(torch.promote_types(h.dtype, torch.float32))
            gains = 2 * torch.sigmoid(h - 5).pow(2.3) + 1e-7  # [B, planes * points, groups]
            taps = impulse_responses(gains.mT.unflatten(2, (self.planes, self.points)))
            size = taps.shape[-1]
            white = hashed_noise(z, self.groups * self.planes * size).to(taps)
            white = white.unflatten(2, (self.groups, self.planes, size)).flatten(1, 2)
            spectra = torch.fft.rfft(white, 2 * size) * torch.fft.rfft(taps, 2 * size)
            noise: Tensor = torch.fft.irfft(spectra, 2 * size)[
                ..., :size
            ]  # [B, groups, planes, size]
        return noise.transpose(1, 2).flatten(2)


def impulse_responses(gains: Tensor) -> Tensor:
    """Zero-phase filters of these gains at 0 to half the rate, under a Hann window.  [..., points] -> [..., size].

    Taps before time zero stand at the end.
    """
    taps = torch.fft.irfft(gains)  # [..., 2 points - 2]
    count = taps.shape[-1]
    window = torch.hann_window(count, dtype=taps.dtype, device=taps.device)
    middle = taps.roll(count // 2, -1) * window
    padded = nn.functional.pad(middle, (0, math.prod(NOISE_STRIDES) - count))
    return padded.roll(-(count // 2), -1)


def hashed_noise(z: Tensor, count: int) -> Tensor:
    """Uniform noise in [-1, 1) that only depends on a frame's latent.  z [B, D, F] -> [B, F, count].

    A frame's key is four weighted sums of its latent in steps of 1 / 16: rounding errors of the encoder hardly ever
    change it.
    """
    d = torch.arange(1, z.shape[1] + 1, device=z.device, dtype=torch.float64)
    weights = torch.stack([(n * d).sin() for n in range(1, 5)])  # [4, D]
    sums = (16 * weights @ z.detach().double()).round().long()  # [B, 4, F]
    keys = torch.zeros_like(sums[:, 0])
    for part in sums.unbind(1):
        keys = _mixed(keys + part)
    numbers = keys[..., None] + torch.arange(count, device=z.device)
    return _mixed(numbers).double() / 2**31 - 1


def _mixed(x: Tensor) -> Tensor:
    """A hash of 32 bits; 0x45D9F3B has 27, so no product overflows."""
    x = x & 0xFFFFFFFF
    for _ in range(2):
        x = ((x ^ (x >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    return x ^ (x >> 16)
