"""A token VAE and its codec as one autoencoder of sounds.

x [B, C, T] -> codec -> codes [B, K, T / token_hop] -> token VAE -> z [B, D, F] -> codes -> codec -> x_hat [B, C, T]
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from audiovae.bottlenecks import Bottled
from audiovae.errors import LatentError
from audiovae.models.base import Autoencoder, Context
from audiovae.models.token_transformer import CodecReference, TokenTransformer


class ThroughCodec(Autoencoder):
    """Sounds in and out, the latent of the token VAE between.

    Raises LatentError if the codec is not the one whose codes the token VAE was trained on.
    """

    def __init__(self, tokens: TokenTransformer, codec: Autoencoder) -> None:
        super().__init__(tokens.config)
        expect_codec(tokens, codec)
        self.tokens, self.codec = tokens, codec
        self.bottleneck = tokens.bottleneck
        self.model_hash, self.statistics = tokens.model_hash, tokens.statistics
        self.train(tokens.training)

    @property
    def encoder_context(self) -> Context:
        """That of the codec: blocks do not see each other."""
        return self.codec.encoder_context

    @property
    def decoder_context(self) -> Context:
        """That of the codec, in blocks."""
        block = self.tokens.config.block
        left, right = self.codec.decoder_context
        return Context(-(-left // block), -(-right // block))

    def encode(
        self, x: Tensor, *, sample: bool = False, generators: Sequence[torch.Generator] = ()
    ) -> Bottled:
        """Encode a sound.  x [B, C, any T] -> z [B, D, F]; the last block lacks the codes that no sound has."""
        (codes,) = self.codec.encode(x).codes
        return self.tokens.encode(codes, sample=sample, generators=generators)

    def bottle(
        self, x: Tensor, *, sample: bool, generators: Sequence[torch.Generator] = ()
    ) -> Bottled:
        """x [B, C, F * hop_length] -> Bottled with F frames."""
        return self.encode(x, sample=sample, generators=generators)

    def synthesise(self, z: Tensor) -> Tensor:
        """z [B, D, F] -> x_hat [B, C, F * hop_length]."""
        return self.codec.decode((self.tokens.synthesise(z),))


def expect_codec(tokens: TokenTransformer, codec: Autoencoder) -> None:
    """Raise LatentError unless the codec is the one that the token VAE names; the message names both."""
    named = named_codec(tokens)
    if codec.model_hash != named.model_hash:
        raise LatentError(
            f"the token model was trained on the codes of the codec {named.model_hash[:12]} ({named.path}), this codec "
            f"is {(codec.model_hash or 'never saved')[:12]}; only the codec that made its tokens can sound them"
        )


def named_codec(tokens: TokenTransformer) -> CodecReference:
    """The codec that a token VAE names.  Raises LatentError if it names none."""
    if tokens.config.codec is None:
        raise LatentError(
            "this token model was trained on tokens that are no codec's, so it has no sound; train one with model.codec"
        )
    return tokens.config.codec
