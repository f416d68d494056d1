"""The token VAE: a transformer from the codes of a discrete model to one Gaussian latent a block, and back.

    codes [B, K, F] -> blocks of N frames -> transformer -> mean over the block -> mu, logvar [B, D, F / N]
    parallel         p(codes | z) = product over frames and codebooks of p(code | z)
    autoregressive   p(codes | z) = product of p(code | the codes before it, z),    frame by frame, in a frame coarse to fine

So powerful a decoder as the second can do without z (Bowman et al. 2016).  Against that it may be given a short memory
(`history`), and in training a share of the codes before may be hidden from it (`word_dropout`, theirs, sec. 3.2).

Blocks do not see each other: what goes from one to the next goes through z.  So a chunk equals the whole and a batch
its single items.  A code below 0 is padding: nothing sees it, and it costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional

from audiovae.bottlenecks import Bottled, GaussianConfig, build_bottleneck
from audiovae.config import Config
from audiovae.errors import ConfigError, LatentError, expect_latent
from audiovae.models.base import Autoencoder, Context, ModelConfig, Reconstruction
from audiovae.nn.code_decoders import PADDING, AutoregressiveDecoder, CodeEmbedding, ParallelDecoder
from audiovae.nn.densities import kl_standard_normal
from audiovae.nn.transformer import Transformer, TransformerConfig


class CodecReference(Config):
    """The discrete model whose codes are the tokens."""

    path: str  # where it was when the tokens were made; a hint
    model_hash: str  # which it was


class TokenTransformerConfig(ModelConfig):
    """Everything that makes a token VAE; the preset `token_transformer` derives it from a size.

    `sample_rate` and `channels` are those of the codec's sound.
    """

    kind: Literal["token_transformer"] = "token_transformer"
    bottleneck: GaussianConfig = GaussianConfig(latent_dim=32)
    codec: CodecReference | None = None  # None: tokens that are no sound's
    codebook_sizes: tuple[int, ...] = Field(
        (2, 2, 2), min_length=1
    )  # codes of each of the K codebooks
    token_hop: int = Field(250, ge=1)  # samples that one frame of tokens stands for
    block: int = Field(16, ge=1)  # N, frames of tokens that one latent frame stands for
    width: int = Field(256, ge=2)  # W
    layers: int = Field(4, ge=1)  # of the encoder, and of the decoder
    heads: int = Field(4, ge=1)
    hidden: int = Field(1024, ge=1)  # width of the MLPs
    decoder: Literal["parallel", "autoregressive"] = "parallel"
    history: int | None = Field(None, ge=1)  # frames that a layer sees back; None: the block's
    word_dropout: float = Field(0.3, ge=0, le=1)  # share hidden from the autoregressive decoder

    @field_validator("codebook_sizes")
    @classmethod
    def _at_least_one(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if min(sizes) < 1:
            raise ValueError(f"a codebook has at least 1 code, got {min(sizes)}")
        return sizes

    @property
    def default_objective(self) -> str:
        """A likelihood."""
        return "likelihood"

    @property
    def hop_length(self) -> int:
        """Samples that one latent frame stands for."""
        return self.token_hop * self.block

    @property
    def token_rate(self) -> float:
        """Frames of tokens per second."""
        return self.sample_rate / self.token_hop

    def stack(self, *, causal: bool) -> TransformerConfig:
        """The transformer on one side."""
        return TransformerConfig(
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            hidden=self.hidden,
            causal=causal,
            window=self.history if causal else None,
        )


class TokenTransformer(Autoencoder):
    """An autoencoder whose x are codes: x [B, K, F] int64 <-> z [B, D, ceil(F / block)].

    `models.through_codec` makes one of sounds out of it and its codec.
    """

    config: TokenTransformerConfig

    def __init__(self, config: TokenTransformerConfig) -> None:
        super().__init__(config)
        self.embed = CodeEmbedding(config.codebook_sizes, config.width)
        self.place = nn.Parameter(0.1 * torch.randn(config.block, config.width))
        self.encoder = Transformer(config.stack(causal=False))
        self.norm = nn.LayerNorm(config.width)
        self.bottleneck = build_bottleneck(config.bottleneck, config.width, config.frame_rate)
        causal = config.decoder == "autoregressive"
        decoder = AutoregressiveDecoder if causal else ParallelDecoder
        self.decoder: AutoregressiveDecoder | ParallelDecoder = decoder(
            config.codebook_sizes,
            config.block,
            config.bottleneck.latent_dim,
            config.stack(causal=causal),
        )

    @property
    def signal_rate(self) -> float:
        """Steps of x per second: frames of codes."""
        return self.config.token_rate

    @property
    def encoder_context(self) -> Context:
        """None: a block is encoded by itself."""
        return Context(0, 0)

    @property
    def decoder_context(self) -> Context:
        """None: a block is decoded by itself."""
        return Context(0, 0)

    def encode(
        self, x: Tensor, *, sample: bool = False, generators: Sequence[torch.Generator] = ()
    ) -> Bottled:
        """Encode codes.  x [B, K, F] int64, below 0 in the frames that an item lacks -> z [B, D, ceil(F / block)].

        The latent frames that an item lacks are 0, and so is their KL.
        Raises LatentError if x has another shape or a code is out of range.
        """
        expect_codes(x, self.config.codebook_sizes)
        missing = x < 0
        if bool((missing != missing[:, :1]).any()):
            raise LatentError(
                "a frame lacks some of its codes; below 0 are all codes of a frame or none"
            )
        padded = functional.pad(x, (0, -x.shape[-1] % self.config.block), value=PADDING)
        return self.bottle(padded, sample=sample, generators=generators)

    def bottle(
        self, x: Tensor, *, sample: bool, generators: Sequence[torch.Generator] = ()
    ) -> Bottled:
        """x [B, K, F], F a multiple of the block -> Bottled with F / block frames."""
        blocks = self._blocks(x)  # [B G, K, N]
        real = blocks[:, 0] >= 0  # [B G, N]
        mask = None if bool(real.all()) else real
        h = self.norm(self.encoder(self.embed(blocks).sum(1) + self.place, mask))  # [B G, N, W]
        h = (h * real[..., None]).sum(1) / real.sum(1, keepdim=True).clamp(min=1)
        h = h.unflatten(0, (len(x), -1)).mT  # [B, W, G]
        bottled: Bottled = self.bottleneck(h, sample=sample, generators=generators)
        if mask is None or bottled.moments is None:
            return bottled
        there = real.any(1).view(len(x), 1, -1)  # [B, 1, G]
        z, mu, logvar = (torch.where(there, t, 0.0) for t in (bottled.z, *bottled.moments))
        kl = kl_standard_normal(mu, logvar).sum(1).mean() * self.frame_rate
        return Bottled(z, (), (mu, logvar), {"kl": kl}, there[:, 0])

    def synthesise(self, z: Tensor) -> Tensor:
        """z [B, D, G] -> codes [B, K, G * block], each the most likely one."""
        codes: Tensor = self.decoder.generate(z.mT.flatten(0, 1))  # [B G, K, N]
        whole: Tensor = codes.unflatten(0, (len(z), -1)).transpose(1, 2).flatten(2)
        return whole

    def log_probs(self, z: Tensor, x: Tensor, shown: Tensor | None = None) -> tuple[Tensor, ...]:
        """The distribution of every code, as log p [B, F, V] for each codebook.

        z [B, D, G], x [B, K, F] with F up to G * block.  The autoregressive decoder takes the codes before from x, or
        from `shown`, where some are hidden (below 0).  Raises LatentError if z or x has another shape.
        """
        expect_latent(z, self.latent_dim)
        codes = x if shown is None else shown
        expect_codes(codes, self.config.codebook_sizes)
        codes = functional.pad(
            codes, (0, z.shape[-1] * self.config.block - x.shape[-1]), value=PADDING
        )
        logits = self.decoder(z.mT.flatten(0, 1), self._blocks(codes))  # [B G, N, V] each
        whole = (h.unflatten(0, (len(x), -1)).flatten(1, 2)[:, : x.shape[-1]] for h in logits)
        return tuple(functional.log_softmax(h.float(), dim=-1) for h in whole)

    def reconstruct(
        self, bottled: Bottled, x: Tensor, *, generators: Sequence[torch.Generator] = ()
    ) -> Reconstruction:
        """Decode.  x [B, K, F] -> x_hat [B, K, F], each code the most likely after the true ones before it.

        Terms "nll" and "kl" in nats per second, averaged over the batch; padding counts as time that costs nothing.
        """
        log_probs = self.log_probs(bottled.z, x, self._hidden(x, generators))
        x_hat = torch.stack([log_p.argmax(-1) for log_p in log_probs], dim=1)
        seconds = x.shape[-1] / self.signal_rate
        costs = [
            functional.nll_loss(log_p.mT, codes, ignore_index=PADDING, reduction="sum")
            for log_p, codes in zip(log_probs, x.clamp(min=PADDING).unbind(1), strict=True)
        ]
        nats = torch.stack(costs).sum()
        padded = bottled.z.shape[-1] / self.frame_rate
        terms = {"nll": nats / (len(x) * seconds), "kl": bottled.terms["kl"] * padded / seconds}
        out = Reconstruction(x_hat.where(x >= 0, PADDING), *bottled)
        return out._replace(terms=terms)

    def _blocks(self, x: Tensor) -> Tensor:
        """[B, K, G * block] -> [B * G, K, block]."""
        blocks: Tensor = x.unflatten(2, (-1, self.config.block)).transpose(1, 2).flatten(0, 1)
        return blocks

    def _hidden(self, x: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """What the autoregressive decoder gets to see of x: in training each code is hidden by chance."""
        share = self.config.word_dropout if self.config.decoder == "autoregressive" else 0.0
        if not self.training or share == 0:
            return x
        if generators:  # one an item, as for the latent's noise
            chance = torch.stack([torch.rand(x.shape[1:], generator=g) for g in generators])
        else:
            chance = torch.rand(x.shape)
        return x.masked_fill(chance.to(x.device) < share, PADDING)


def expect_codes(x: Tensor, sizes: Sequence[int]) -> None:
    """Raise LatentError unless x is int64 [B, K, F] with codes of codebooks of these sizes, or below 0."""
    if x.ndim != 3 or x.shape[1] != len(sizes) or x.shape[2] == 0 or x.dtype != torch.int64:
        raise LatentError(
            f"codes are int64 [batch, {len(sizes)}, frames], got {x.dtype} of shape {tuple(x.shape)}"
        )
    for number, size in enumerate(sizes):
        if int(x[:, number].max()) >= size:
            raise LatentError(
                f"codebook {number} has the codes 0 to {size - 1}, got {int(x[:, number].max())}"
            )


SIZES = {  # size -> width, layers, heads
    0: (32, 1, 2),  # the test model
    1: (128, 2, 4),
    2: (256, 4, 4),
    3: (384, 6, 6),
    4: (512, 8, 8),
}


def token_transformer(
    size: int = 2,
    *,
    latent_dim: int | None = None,
    block: int = 16,
    decoder: Literal["parallel", "autoregressive"] = "parallel",
) -> TokenTransformerConfig:
    """Return the config of a token VAE.

    size 0 (tests) to 4. `block` frames of tokens make one latent frame; as many as the longest sequence has make it
    one latent for all. The tokens are those of the data `token_source` until `codec` names a discrete model.
    Raises ConfigError for another size.
    """
    if size not in SIZES:
        raise ConfigError(f"size must be one of {sorted(SIZES)}, got {size}")
    width, layers, heads = SIZES[size]
    if latent_dim is None:
        latent_dim = 32 if size else 8
    return TokenTransformerConfig(
        sample_rate=16_000,
        channels=1,
        bottleneck=GaussianConfig(latent_dim=latent_dim),
        block=block,
        width=width,
        layers=layers,
        heads=heads,
        hidden=4 * width if size else 2 * width,
        decoder=decoder,
    )
