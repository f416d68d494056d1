"""The spectral-frame VAE: an exact filter bank outside, all learning at the frame rate.

    x -> mid/side -> STFT -> envelope, compressed re, im -> blocks (frames) -> join `stride` frames -> blocks -> mu, logvar
    z -> blocks -> split into `stride` frames -> blocks -> envelope * (re, im) -> inverse STFT -> left/right

Waveform nets spend most of their arithmetic at or next to the audio rate; here a second of stereo sound is 172 frames.
The envelope, a log amplitude in each of 32 mel bands, is given to the encoder and multiplies what the decoder says:
gain and shape apart, as CELT codes them (Valin et al. 2010); benchmarks/front_end.py sets it beside nets that have to
find the envelope by themselves. The compression X |X|^(p - 1) (p = 1/3) brings loud
and soft bins to one scale (Braun & Tashev 2021 train on it). Kin: Vocos (Siuzdak 2024) for the head, MDCTCodec (Jiang
et al. 2024) for the frame-rate blocks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from audiovae.audio.stereo import left_right, mid_side
from audiovae.audio.transforms import MDCT, STFT, Phase, window_margins
from audiovae.bottlenecks import Bottled, GaussianConfig, build_bottleneck
from audiovae.errors import ConfigError
from audiovae.models.base import Autoencoder, Context, ModelConfig
from audiovae.models.envelope import MAX_LOG_MAGNITUDE, Envelope
from audiovae.nn.blocks import FrameBlock, frame_margins


class SpecFrameConfig(ModelConfig):
    """Everything that makes a spectral-frame VAE; the preset `spec_frame` derives it from a size."""

    kind: Literal["spec_frame"] = "spec_frame"
    front_end: Literal["stft", "mdct"] = "stft"  # the filter bank on both sides
    win_length: int = Field(1024, ge=4)  # samples; the MDCT's is always two hops
    frame_hop: int = Field(256, ge=2)  # samples from one frame of the filter bank to the next
    stride: int = Field(4, ge=1)  # frames of the filter bank that one latent frame joins
    phase: Phase = (
        "sound"  # what the STFT's phases count from; "sound" needs whole windows in a latent frame
    )
    # how the decoder gives a bin: gain times re, im; compressed re, im; or log magnitude, angle
    head: Literal["gain_shape", "complex", "polar"] = "gain_shape"
    bands: int = Field(32, ge=1)  # of the envelope, with the head "gain_shape"
    compression: float = Field(1 / 3, gt=0, le=1)  # p of X |X|^(p - 1)
    width: int = Field(256, ge=4)  # W of the blocks at the filter bank's rate
    latent_width: int = Field(512, ge=4)  # W of the blocks at the latent's rate
    depth: int = Field(1, ge=0)  # blocks on each side at the filter bank's rate
    latent_depth: int = Field(3, ge=0)  # blocks on each side at the latent's rate
    kernel_size: int = Field(7, ge=1)  # frames that a block sees
    expansion: float = Field(3.0, gt=0)  # hidden width of a block's MLP over its width
    causal: bool = False  # no frame sees beyond its window's end

    @model_validator(mode="after")
    def _windows_fit(self) -> SpecFrameConfig:
        if self.front_end == "stft" and (
            self.win_length % self.frame_hop or self.win_length < 2 * self.frame_hop
        ):
            raise ValueError(
                f"win_length must be a multiple of frame_hop ({self.frame_hop}), at least twice it"
            )
        if self.front_end == "stft" and self.phase == "sound" and self.hop_length % self.win_length:
            raise ValueError(
                f'phase "sound" needs frame_hop * stride ({self.hop_length}) to be a multiple of win_length '
                f'({self.win_length}); set phase to "frame"'
            )
        if self.front_end == "mdct" and self.head == "polar":
            raise ValueError('the MDCT has no angle; set head to "gain_shape" or "complex"')
        if self.head == "gain_shape" and self.bands > self.window // 2:
            raise ValueError(f"bands must be at most half a window ({self.window // 2})")
        return self

    @property
    def hop_length(self) -> int:
        """Samples that one latent frame stands for."""
        return self.frame_hop * self.stride

    @property
    def window(self) -> int:
        """Samples under one frame of the filter bank."""
        return self.win_length if self.front_end == "stft" else 2 * self.frame_hop


class SpecFrame(Autoencoder):
    """The default family.  x [B, C, T] <-> z [B, D, ceil(T / hop_length)]."""

    config: SpecFrameConfig

    def __init__(self, config: SpecFrameConfig) -> None:
        super().__init__(config)
        self.bank: STFT | MDCT = (
            STFT(config.win_length, config.frame_hop, config.causal, config.phase)
            if config.front_end == "stft"
            else MDCT(config.frame_hop, config.causal)
        )
        self.parts = 2 if config.front_end == "stft" else 1  # re and im, or one real number
        self.envelope = None
        if config.head == "gain_shape":
            self.envelope = Envelope(
                config.bands, self.bank.n_bins, config.sample_rate, config.channels
            )
        features = config.channels * (
            self.parts * self.bank.n_bins + (config.bands if self.envelope else 0)
        )
        joined = config.stride * config.width

        self.listen = nn.Linear(features, config.width)
        self.encoder_frames = self._blocks(config.width, config.depth)
        self.join = nn.Linear(joined, config.latent_width)
        self.encoder = self._blocks(config.latent_width, config.latent_depth)
        self.bottleneck = build_bottleneck(
            config.bottleneck, config.latent_width, config.frame_rate
        )
        self.unfold = nn.Linear(config.bottleneck.latent_dim, config.latent_width)
        self.decoder = self._blocks(config.latent_width, config.latent_depth)
        self.split = nn.Linear(config.latent_width, joined)
        self.decoder_frames = self._blocks(config.width, config.depth)
        self.norm = nn.LayerNorm(config.width)
        self.speak = nn.Linear(config.width, features)
        if self.envelope is not None:
            self._begin_at_the_centre()

    @torch.no_grad()
    def _begin_at_the_centre(self) -> None:
        """Let the decoder begin with the envelope of music as such, so that its shapes are heard at the right level."""
        for parameter in (self.speak.weight, self.speak.bias):
            parameter.unflatten(0, (self.channels, -1))[:, -self.config.bands :] = 0

    def _blocks(self, width: int, depth: int) -> nn.Sequential:
        c = self.config
        return nn.Sequential(
            *(FrameBlock(width, c.kernel_size, c.expansion, c.causal) for _ in range(depth))
        )

    def bottle(
        self, x: Tensor, *, sample: bool, generators: Sequence[torch.Generator] = ()
    ) -> Bottled:
        """x [B, C, F * hop_length] -> Bottled."""
        h = self.listen(self.features(x))  # [B, F * stride, W]
        h = self.encoder_frames(h)
        h = self.join(h.unflatten(1, (-1, self.config.stride)).flatten(2))
        bottled: Bottled = self.bottleneck(self.encoder(h).mT, sample=sample, generators=generators)
        return bottled

    def synthesise(self, z: Tensor) -> Tensor:
        """z [B, D, F] -> x_hat [B, C, F * hop_length]."""
        h = self.decoder(self.unfold(z.mT))
        h = self.split(h).unflatten(2, (self.config.stride, -1)).flatten(1, 2)
        return self.sound(self.speak(self.norm(self.decoder_frames(h))))

    def features(self, x: Tensor) -> Tensor:
        """What the net sees of mid and side.  [B, C, T] -> [B, T / frame_hop, C * (parts * N + bands)]."""
        planes, power = self.spectrum(x)
        gain = power.pow((self.config.compression - 1) / 2)
        features = [plane * gain for plane in planes]
        if self.envelope is not None:
            features.append(self.envelope(power))
        return torch.cat(features, dim=3).transpose(1, 2).flatten(2)

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Tensor], seed: int = 0) -> None:
        """Centre and scale the envelope by the sounds to come: on quiet ones phase is hardly learned otherwise."""
        sounds = list(batches)
        if self.envelope is not None:
            self.envelope.calibrate([self.spectrum(x)[1] for x in sounds])
        super().calibrate(sounds, seed)

    def spectrum(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """The parts and the power of mid and side; each [B, C, T / frame_hop, N]."""
        x = mid_side(x) if self.channels == 2 else x
        spectrum = self.bank(x)
        if self.parts == 1:
            return [spectrum], spectrum.square() + 1e-10
        planes = [spectrum.real, spectrum.imag]
        return planes, planes[0].square() + planes[1].square() + 1e-10

    def sound(self, h: Tensor) -> Tensor:
        """What the net says, in sound.  [B, T / frame_hop, C * (parts * N + bands)] -> [B, C, T]."""
        n_bins = self.bank.n_bins
        h = (
            h.float().unflatten(2, (self.channels, -1)).transpose(1, 2)
        )  # [B, C, F, parts * N + bands]
        planes = h[..., : self.parts * n_bins].unflatten(3, (self.parts, n_bins)).unbind(3)
        if self.config.head == "polar":
            spectrum = torch.polar(planes[0].clamp(max=MAX_LOG_MAGNITUDE).exp(), planes[1])
        else:
            if self.envelope is not None:
                gain = self.envelope.gain(h[..., self.parts * n_bins :])
            else:
                power = sum(plane.square() for plane in planes) + 1e-10
                gain = power.pow((1 / self.config.compression - 1) / 2)
            parts = [plane * gain for plane in planes]
            spectrum = torch.complex(*parts) if self.parts == 2 else parts[0]
        x = self.bank.inverse(spectrum)
        return left_right(x) if self.channels == 2 else x

    @property
    def encoder_context(self) -> Context:
        """Samples before and after a latent frame's own that can change it."""
        left, right = self._block_margins()
        before, after = window_margins(
            self.config.window, self.config.frame_hop, self.config.causal
        )
        return Context(left * self.config.frame_hop + before, right * self.config.frame_hop + after)

    @property
    def decoder_context(self) -> Context:
        """Latent frames before and after a frame's own that can change its samples."""
        c = self.config
        left, right = self._block_margins()
        before, after = window_margins(c.window, c.frame_hop, c.causal)
        # a sample lies under windows of earlier frames that reach forward to it, and of later ones that reach back
        left += -(-after // c.frame_hop)
        right += -(-before // c.frame_hop)
        return Context(-(-left // c.stride), -(-right // c.stride))

    def _block_margins(self) -> tuple[int, int]:
        """Frames of the filter bank that one side's blocks reach to the left and right."""
        c = self.config
        reach = c.depth + c.latent_depth * c.stride
        left, right = frame_margins(c.kernel_size, c.causal)
        return left * reach, right * reach


SIZES = {  # size -> width, latent width, depth, latent depth: weights at stereo 44.1 kHz
    0: (8, 16, 1, 1),  # the test model
    1: (96, 192, 1, 2),
    2: (160, 320, 1, 3),
    3: (256, 512, 1, 3),  # the default: above 10 M
    4: (384, 768, 2, 4),
    5: (512, 1024, 2, 6),
}


def spec_frame(
    size: int = 3,
    *,
    sample_rate: int = 44_100,
    channels: int = 2,
    latent_dim: int | None = None,
    frame_rate: float | None = None,
    causal: bool = False,
) -> SpecFrameConfig:
    """Return the config of a spectral-frame VAE.

    size 0 (tests) to 5; the default 3 suits two CPU cores. A window is the power of two next to 23 ms, four of its
    hops make a latent frame: 43 a second at 44.1 kHz, 47 at 24 kHz. With `frame_rate` it is as many whole windows
    as come closest (21.5 Hz: two). 64 latents, at size 0 8. Raises ConfigError for another size.
    """
    if size not in SIZES:
        raise ConfigError(f"size must be one of {sorted(SIZES)}, got {size}")
    width, latent_width, depth, latent_depth = SIZES[size]
    win_length = 2 ** round(math.log2(0.0232 * sample_rate)) if size else 128
    windows = 1 if frame_rate is None else max(1, round(sample_rate / win_length / frame_rate))
    if latent_dim is None:
        latent_dim = 64 if size else 8
    return SpecFrameConfig(
        sample_rate=sample_rate,
        channels=channels,
        bottleneck=GaussianConfig(latent_dim=latent_dim),
        win_length=win_length,
        frame_hop=win_length // 4,
        bands=32 if size else 8,
        stride=4 * windows,
        width=width,
        latent_width=latent_width,
        depth=depth,
        latent_depth=latent_depth,
        causal=causal,
    )
