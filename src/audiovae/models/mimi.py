"""Mimi: the causal speech codec of Moshi, 12.5 frames a second (Défossez et al. 2024, arXiv 2410.00037, sec. 3.3).

    encoder   SEANet to 25 Hz; a causal transformer with a window; a strided conv to 12.5 Hz
    latent    two quantizers side by side: one semantic codebook, 31 residual acoustic ones; z is their sum
    decoder   a depth-wise transposed conv to 25 Hz; a causal transformer; SEANet

No output sees a later input, so the delay is one frame, 80 ms. At size 3 it is the published net, weight for weight
(interop/mimi.py proves it). Of its training two parts are not here: the semantic code's distillation from WavLM, and
leaving half of the items unquantized.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from audiovae.bottlenecks import Bottled, Bottleneck
from audiovae.bottlenecks.rvq import RVQ, RVQConfig
from audiovae.errors import ConfigError, expect_codes, expect_waveform
from audiovae.models.base import Autoencoder, Context, ModelConfig
from audiovae.nn.padded_conv import Conv, TransposedConv, inputs_of
from audiovae.nn.seanet import Decoder, Encoder, SeanetConfig
from audiovae.nn.transformer import Transformer, TransformerConfig

FRAME_STRIDE = 2  # frames of the transformers to one of the latent
WIDTHS, LAYERS = (2, 16, 32, 64), (1, 2, 4, 8)  # of SEANet and of each transformer, by size


class MimiConfig(ModelConfig):
    """What a Mimi is made of."""

    kind: Literal["mimi"] = "mimi"
    sample_rate: int = Field(24_000, ge=1_000, le=384_000)  # Hz
    channels: int = Field(1, ge=1, le=8)  # C
    seanet: SeanetConfig = SeanetConfig(
        width=64,
        strides=(4, 5, 6, 8),
        last_kernel_size=3,
        shortcut="identity",
        lstm_layers=0,
        norm="none",
        padding="constant",
    )
    transformer: TransformerConfig = TransformerConfig(window=250, layer_scale=0.01, bias=False)
    bottleneck: RVQConfig = RVQConfig(
        latent_dim=512,
        codebook_size=2048,
        codebook_dim=256,
        n_codebooks=32,
        shared_projection=True,
    )
    n_semantic: int = Field(1, ge=1)  # of the codebooks, the first ones

    @model_validator(mode="after")
    def _causal_and_of_one_width(self) -> MimiConfig:
        if not self.seanet.causal or self.seanet.lstm_layers or self.seanet.norm == "group":
            raise ValueError("its seanet must be causal, without LSTM and without group norm")
        if not self.transformer.causal or self.transformer.window is None:
            raise ValueError("its transformer must be causal and have a window")
        if self.transformer.width != self.bottleneck.latent_dim:
            raise ValueError(
                "transformer.width and bottleneck.latent_dim must be equal, "
                f"got {self.transformer.width} and {self.bottleneck.latent_dim}"
            )
        if not self.bottleneck.shared_projection:
            raise ValueError("bottleneck.shared_projection must be true")
        if self.n_semantic >= self.bottleneck.n_codebooks:
            raise ValueError(
                f"n_semantic must be below the number of codebooks, {self.bottleneck.n_codebooks}, "
                f"got {self.n_semantic}"
            )
        return self

    @property
    def hop_length(self) -> int:
        """Samples that one latent frame stands for."""
        return self.seanet.hop_length * FRAME_STRIDE


def mimi(
    size: int = 3,
    *,
    sample_rate: int = 24_000,
    channels: int = 1,
    n_codebooks: int | None = None,
) -> MimiConfig:
    """Mimi, one latent frame for 1920 samples.  Size 3 is the published net, 0 the test model.

    The widths halve with each size. Codebooks: 32 of 2048 codes, at size 0 4 of 32.
    Raises ConfigError for a size that is not 0 to 3.
    """
    if not 0 <= size < len(WIDTHS):
        raise ConfigError(f"size must be 0 to 3, got {size}; 3 is the published net")
    published, width = MimiConfig(), WIDTHS[size]
    return MimiConfig(
        sample_rate=sample_rate,
        channels=channels,
        seanet=published.seanet.model_copy(update={"width": width}),
        transformer=TransformerConfig(
            width=8 * width,
            layers=LAYERS[size],
            heads=max(1, width // 8),
            hidden=32 * width,
            window=250 if size else 8,
            layer_scale=0.01,
            bias=False,
        ),
        bottleneck=RVQConfig(
            latent_dim=8 * width,
            codebook_size=2048 if size else 32,
            codebook_dim=4 * width,
            n_codebooks=n_codebooks or (32 if size else 4),
            shared_projection=True,
        ),
    )


class Mimi(Autoencoder):
    """The codec of Moshi."""

    config: MimiConfig
    bottleneck: SplitRVQ

    def __init__(self, config: MimiConfig) -> None:
        super().__init__(config)
        width, of = config.transformer.width, config.seanet
        replicating = of.model_copy(update={"padding": "replicate"})
        taps = 2 * FRAME_STRIDE
        self.encoder = Encoder(of, config.channels, width)
        self.encoder_transformer = Transformer(config.transformer)
        self.down = Conv(replicating, width, width, taps, stride=FRAME_STRIDE, bias=False)
        self.bottleneck = SplitRVQ(config.bottleneck, config.n_semantic, config.frame_rate)
        self.up = TransposedConv(
            of, width, width, taps, stride=FRAME_STRIDE, groups=width, bias=False
        )
        self.decoder_transformer = Transformer(config.transformer)
        self.decoder = Decoder(of, config.channels, width)

    def encode(
        self, x: Tensor, *, sample: bool = False, generators: Sequence[torch.Generator] = ()
    ) -> Bottled:
        """Encode a sound.  x [B, C, T] in [-1, 1], any T >= 1 -> z [B, D, ceil(T / hop_length)].

        An unfilled last frame is filled with silence in each layer, as transformers does; moshi fills the waveform,
        which may choose other codes for this one frame. Raises AudioError if x has another shape or number of channels.
        """
        expect_waveform(x, self.channels)
        return self.bottle(x, sample=sample, generators=generators)

    def bottle(
        self, x: Tensor, *, sample: bool, generators: Sequence[torch.Generator] = ()
    ) -> Bottled:
        """x [B, C, T] -> Bottled with F = ceil(T / hop_length) frames."""
        h = self.encoder(x)  # [B, D, ceil(T / hop of SEANet)]
        h = self.down(self.encoder_transformer(h.mT).mT)  # [B, D, F]
        bottled: Bottled = self.bottleneck(h, sample=sample, generators=generators)
        return bottled

    def synthesise(self, z: Tensor) -> Tensor:
        """z [B, D, F] -> x_hat [B, C, F * hop_length]; not limited to [-1, 1]."""
        x_hat: Tensor = self.decoder(self.decoder_transformer(self.up(z).mT).mT)
        return x_hat

    @property
    def encoder_context(self) -> Context:
        """Samples before the first and after the last one of a latent frame that can change it."""
        first, last = self.down.inputs_of(0, 0)
        first, last = inputs_of(self.encoder, first - self._transformer_reach, last)
        return Context(-first, last - (self.hop_length - 1))

    @property
    def decoder_context(self) -> Context:
        """Latent frames before and after a frame that can change its hop_length samples."""
        first, last = inputs_of(self.decoder, 0, self.hop_length - 1)
        first, last = self.up.inputs_of(first - self._transformer_reach, last)
        return Context(-first, last)

    @property
    def _transformer_reach(self) -> int:
        """Frames at 25 Hz, behind."""
        reach = self.config.transformer.reach
        assert reach is not None
        return reach


class SplitRVQ(Bottleneck):
    """Semantic codebooks beside residual acoustic ones, each with its own projections; z is the sum.

    h [B, D, F] -> z [B, D, F], codes [B, K, F], the semantic ones first. Terms are sums over both.
    """

    def __init__(self, config: RVQConfig, n_semantic: int, frame_rate: float) -> None:
        super().__init__()
        counts = n_semantic, config.n_codebooks - n_semantic
        self.semantic, self.acoustic = (
            RVQ(config.model_copy(update={"n_codebooks": count}), None, frame_rate)
            for count in counts
        )

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Codes of each codebook."""
        return self.semantic.codebook_sizes + self.acoustic.codebook_sizes

    def forward(
        self, h: Tensor, *, sample: bool, generators: Sequence[torch.Generator] = ()
    ) -> Bottled:
        """Quantize.  h [B, D, F] -> z [B, D, F]; in training `sample` lets items drop fine codebooks."""
        first: Bottled = self.semantic(h, sample=sample, generators=generators)
        rest: Bottled = self.acoustic(h, sample=sample, generators=generators)
        return Bottled(
            z=first.z + rest.z,
            codes=(torch.cat([first.codes[0], rest.codes[0]], dim=1),),
            moments=None,
            terms={name: first.terms[name] + rest.terms[name] for name in first.terms},
        )

    def from_codes(self, codes: Tensor) -> Tensor:
        """Codes [B, K, F] of all codebooks or the first few -> z [B, D, F].  Raises LatentError for others."""
        expect_codes(codes, self.codebook_sizes)
        n_semantic = len(self.semantic.codebook_sizes)
        z = self.semantic.from_codes(codes[:, :n_semantic])
        if codes.shape[1] > n_semantic:
            z = z + self.acoustic.from_codes(codes[:, n_semantic:])
        return z
