"""EnCodec: a SEANet with an LSTM around residual codebooks (Défossez et al. 2022, arXiv 2210.13438).

    x -> segments, each over its RMS -> SEANet encoder -> RVQ -> SEANet decoder -> times RMS -> overlap-add

The 24 kHz model is causal and takes a sound in one piece. The 48 kHz model takes it in segments of a second that overlap
by a hundredth; its group norm sees a whole segment, and so does the RMS, a second level of codes. A segment's frames
follow those of the segment before it, so a sound has a few more frames than its samples by `hop_length`.

At size 4 they are the published nets, weight for weight (interop/encodec.py proves it).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from audiovae.bottlenecks import RVQ, Bottled, RVQConfig
from audiovae.errors import ConfigError, LatentError, expect_codes, expect_waveform
from audiovae.models.base import UNLIMITED, Autoencoder, Context, ModelConfig, Unit
from audiovae.models.segments import (
    SCALE_SIZES,
    Segment,
    Segmentation,
    codes_of_scale,
    overlap_add,
    rms,
    runs,
    scale_of_codes,
)
from audiovae.nn.padded_conv import inputs_of
from audiovae.nn.seanet import Decoder, Encoder, SeanetConfig

WIDTHS = (2, 4, 8, 16, 32)  # of SEANet, by size; 4 is the published one


class EncodecConfig(ModelConfig):
    """What an EnCodec is made of."""

    kind: Literal["encodec"] = "encodec"
    sample_rate: int = Field(24_000, ge=1_000, le=384_000)  # Hz
    channels: int = Field(1, ge=1, le=8)  # C
    seanet: SeanetConfig = SeanetConfig()
    bottleneck: RVQConfig = RVQConfig(latent_dim=128, n_codebooks=32)
    bandwidths: tuple[Annotated[float, Field(gt=0)], ...] = Field(  # kbit/s, those in use
        (1.5, 3.0, 6.0, 12.0, 24.0), min_length=1
    )
    segment_seconds: float | None = Field(None, gt=0)  # None: the whole sound is one
    overlap: float = Field(0.01, ge=0, le=0.5)  # of a segment
    normalise: bool = False  # each segment over its RMS

    @model_validator(mode="after")
    def _fits_together(self) -> EncodecConfig:
        if self.segmentation.stride < self.hop_length:
            raise ValueError(
                f"segments must begin at least hop_length ({self.hop_length}) samples apart, "
                f"got {self.segmentation.stride}"
            )
        if self.seanet.norm == "group" and self.seanet.causal:
            raise ValueError(
                'a group norm sees later samples; set seanet.causal to false or norm to "weight"'
            )
        return self

    @property
    def hop_length(self) -> int:
        """Samples that one latent frame stands for."""
        return self.seanet.hop_length

    @property
    def segmentation(self) -> Segmentation:
        """How a sound is cut; without `segment_seconds` into one piece."""
        if self.segment_seconds is None:
            return Segmentation(UNLIMITED, UNLIMITED, self.hop_length)
        length = int(self.segment_seconds * self.sample_rate)
        return Segmentation(length, max(1, int((1 - self.overlap) * length)), self.hop_length)

    def codebooks_at(self, kbps: float) -> int:
        """How many of the codebooks this bandwidth in kbit/s has room for.

        Raises ConfigError if it has none for the first, or more than there are.
        """
        rate, most = self.codebook_rate / 1000, self.bottleneck.n_codebooks
        if not rate - 1e-9 <= kbps < (most + 1) * rate:
            raise ConfigError(
                f"the bandwidth must be {rate:g} to {most * rate:g} kbit/s, got {kbps:g}"
            )
        return int((1000 * kbps + 1e-6) // self.codebook_rate)

    @property
    def codebook_rate(self) -> int:
        """Bits a second of one codebook, in whole bits and whole frames, as EnCodec counts them."""
        return math.ceil(self.frame_rate) * (self.bottleneck.codebook_size - 1).bit_length()


def encodec_24k(
    size: int = 4,
    *,
    sample_rate: int = 24_000,
    channels: int = 1,
    n_codebooks: int | None = None,
) -> EncodecConfig:
    """EnCodec for 24 kHz mono: causal, 75 frames a second.  Size 4 is the published net, 0 the test model.

    The width halves with each size. Codebooks: 32 of 1024 codes (24 kbit/s), at size 0 4 of 32.
    Raises ConfigError for a size that is not 0 to 4.
    """
    return _preset(size, sample_rate, channels, n_codebooks or (32 if size else 4), SeanetConfig())


def encodec_48k(
    size: int = 4,
    *,
    sample_rate: int = 48_000,
    channels: int = 2,
    n_codebooks: int | None = None,
) -> EncodecConfig:
    """EnCodec for 48 kHz stereo: segments of a second, 150 frames each.  Size 4 is the published net, 0 the test model.

    The width halves with each size. Codebooks: 16 of 1024 codes (24 kbit/s), at size 0 4 of 32; its segments have 6
    frames at size 0. Raises ConfigError for a size that is not 0 to 4.
    """
    seanet = SeanetConfig(causal=False, norm="group")
    config = _preset(size, sample_rate, channels, n_codebooks or (16 if size else 4), seanet)
    segmented = {"segment_seconds": 1.0 if size else 0.04, "normalise": True}
    return EncodecConfig(**(dict(config) | segmented))


def _preset(
    size: int, sample_rate: int, channels: int, n_codebooks: int, seanet: SeanetConfig
) -> EncodecConfig:
    if not 0 <= size < len(WIDTHS):
        raise ConfigError(f"size must be 0 to 4, got {size}; 4 is the published net")
    latent_dim, codebook_size = (128, 1024) if size else (8, 32)
    counts = [n_codebooks]  # halved down to 2, as the published bandwidths are
    while counts[-1] % 2 == 0 and counts[-1] > 2:
        counts.append(counts[-1] // 2)
    config = EncodecConfig(
        sample_rate=sample_rate,
        channels=channels,
        seanet=seanet.model_copy(update={"width": WIDTHS[size]}),
        bottleneck=RVQConfig(
            latent_dim=latent_dim, codebook_size=codebook_size, n_codebooks=n_codebooks
        ),
    )
    rates = tuple(count * config.codebook_rate / 1000 for count in reversed(counts))
    return config.model_copy(update={"bandwidths": rates})


class Encodec(Autoencoder):
    """The codec of Meta.

    With `normalise` a latent frame has one number more than its code, the last: the logarithm of its segment's RMS. Its
    codes are two levels then, first that of the RMS, one code for each segment.
    """

    config: EncodecConfig
    bottleneck: RVQ

    def __init__(self, config: EncodecConfig) -> None:
        super().__init__(config)
        dim = config.bottleneck.latent_dim
        self.encoder = Encoder(config.seanet, config.channels, dim)
        self.bottleneck = RVQ(config.bottleneck, None, config.frame_rate)
        self.decoder = Decoder(config.seanet, config.channels, dim)

    def encode(
        self, x: Tensor, *, sample: bool = False, generators: Sequence[torch.Generator] = ()
    ) -> Bottled:
        """Encode a sound.  x [B, C, T] in [-1, 1], any T >= 1 -> z [B, D, frames_of(T)].

        The layers themselves fill the last frame. Raises AudioError if x has another shape or number of channels.
        """
        expect_waveform(x, self.channels)
        return self.bottle(x, sample=sample, generators=generators)

    def bottle(
        self, x: Tensor, *, sample: bool, generators: Sequence[torch.Generator] = ()
    ) -> Bottled:
        """x [B, C, T], any T -> Bottled with frames_of(T) frames."""
        hs, scales = [], []
        segments = self.config.segmentation.segments_of(x.shape[-1])
        for _, alike in runs(segments):
            parts = torch.stack([x[..., s.start : s.start + s.length] for s in alike], dim=1)
            if self.config.normalise:
                scale = rms(parts)  # [B, n]
                scales.append(scale)
                parts = parts / scale[..., None, None]
            h = self.encoder(parts.flatten(0, 1)).unflatten(0, parts.shape[:2])
            hs.append(h.transpose(1, 2).flatten(2))  # [B, D, n * frames]
        bottled: Bottled = self.bottleneck(torch.cat(hs, 2), sample=sample, generators=generators)
        if not self.config.normalise:
            return bottled
        scale = torch.cat(scales, dim=1)
        z = _with_scale(bottled.z, scale, segments)
        return bottled._replace(z=z, codes=(codes_of_scale(scale), *bottled.codes))

    def synthesise(self, z: Tensor) -> Tensor:
        """z [B, D, F] -> x_hat [B, C, T], for T samples with F frames; not limited to [-1, 1]."""
        segments = self.config.segmentation.segments_in(z.shape[-1])
        xs: list[Tensor] = []
        for first, alike in runs(segments):
            frames = alike[0].frames
            parts = z[..., first : first + len(alike) * frames].unflatten(2, (-1, frames))
            h = parts.transpose(1, 2)  # [B, n, D, frames]
            if self.config.normalise:
                h, log_scale = h[:, :, :-1], h[:, :, -1:].mean(-1, keepdim=True)
            y = self.decoder(h.flatten(0, 1)).unflatten(0, h.shape[:2])  # [B, n, C, samples]
            xs.extend((y * log_scale.exp() if self.config.normalise else y).unbind(1))
        return xs[0] if len(xs) == 1 else overlap_add(xs, self.config.segmentation.stride)

    def from_codes(self, codes: Sequence[Tensor]) -> Tensor:
        """Codes [B, K, F], K from 1 to all codebooks -> z [B, D, F]; with `normalise` those of the RMS before them.

        Raises LatentError for codes out of range, of another number of levels, or too many codebooks.
        """
        if not self.config.normalise:
            return super().from_codes(codes)
        if len(codes) != 2:
            raise LatentError(
                f"this model has two levels of codes, its segments' RMS and the sound's, got {len(codes)}"
            )
        expect_codes(codes[0], SCALE_SIZES)
        z = self.bottleneck.from_codes(codes[1])
        segments = self.config.segmentation.segments_in(z.shape[-1])
        if codes[0].shape[-1] != len(segments):
            raise LatentError(
                f"{z.shape[-1]} frames are {len(segments)} segments, got the RMS of {codes[0].shape[-1]}"
            )
        return _with_scale(z, scale_of_codes(codes[0]), segments)

    def frames_of(self, length: int) -> int:
        """Latent frames of a sound of so many samples."""
        return self.config.segmentation.frames_of(length)

    @property
    def unit(self) -> Unit:
        """The grid of the segments, where there are any."""
        if self.config.segment_seconds is None:
            return super().unit
        length, stride, hop = self.config.segmentation
        return Unit(stride, -(-length // hop))

    @property
    def latent_dim(self) -> int:
        """Numbers in one latent frame, D."""
        return self.config.bottleneck.latent_dim + self.config.normalise

    @property
    def codebook_sizes(self) -> tuple[tuple[int, ...], ...]:
        """For each level of codes: how many codes each of its codebooks has."""
        sizes = super().codebook_sizes
        return (SCALE_SIZES, *sizes) if self.config.normalise else sizes

    @property
    def code_rates(self) -> tuple[float, ...]:
        """Frames of codes per second of each level; of the RMS, segments."""
        segments = self.sample_rate / self.config.segmentation.stride
        return (segments, self.frame_rate) if self.config.normalise else (self.frame_rate,)

    @property
    def side_levels(self) -> int:
        """The RMS of the segments is the first level."""
        return int(self.config.normalise)

    @property
    def encoder_context(self) -> Context:
        """Samples before the first and after the last one of a unit that can change its frames."""
        if self.config.segment_seconds is not None:
            length, stride, _ = self.config.segmentation
            return Context(0, length - stride)
        first, last = inputs_of(self.encoder, 0, 0)
        return self._widened(Context(-first, last - (self.hop_length - 1)))

    @property
    def decoder_context(self) -> Context:
        """Latent frames before and after a unit's that can change its samples.

        Of a segment they are the one before, whose end lies over it, and as many after as show that it is a whole one.
        """
        if self.config.segment_seconds is not None:
            length, stride, hop = self.config.segmentation
            frames = self.unit.frames
            before = -(-frames * hop // stride) - 1
            return Context(before * frames, -(-(length - stride) // hop))
        first, last = inputs_of(self.decoder, 0, self.hop_length - 1)
        return self._widened(Context(-first, last))

    def _widened(self, context: Context) -> Context:
        """The context of the convolutions, with what else sees the whole sound."""
        if self.config.seanet.norm == "group" or self.config.normalise:
            return Context(UNLIMITED, UNLIMITED)
        return context._replace(left=UNLIMITED) if self.config.seanet.lstm_layers else context


def _with_scale(z: Tensor, scale: Tensor, segments: Sequence[Segment]) -> Tensor:
    """z [B, D, F] and the scale of each segment [B, n] -> [B, D + 1, F]."""
    frames = torch.tensor([segment.frames for segment in segments], device=z.device)
    row = scale.log().repeat_interleave(frames, dim=1)[:, None]
    return torch.cat([z, row.to(z.dtype)], dim=1)
