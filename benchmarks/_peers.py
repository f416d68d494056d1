"""The nets that the speed benchmarks time, each behind the same four functions, with fresh weights.

Our default beside the published nets: Stable Audio's Oobleck (diffusers), DAC 44 kHz and EnCodec 24 kHz
(transformers), from their published configs. `narrow` makes each tiny, to try a script out.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from audiovae import models
from audiovae.models import Reconstruction

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before transformers: nothing is downloaded


class Net(NamedTuple):
    """A net and how to use it."""

    module: nn.Module
    sample_rate: int
    channels: int
    origin: str  # the package that it comes from, with its version
    reconstruct: Callable[[Tensor], Reconstruction]  # as in training, x [B, C, T]
    encode: Callable[[Tensor], Any]  # as in use
    decode: Callable[[Any], Tensor]
    weights: dict[str, float]  # of the terms in which its objective differs from spec_frame's


def spec_frame(narrow: bool = False) -> Net:
    """Our default."""
    model = models.build(models.resolve("spec_frame", {"size": 0} if narrow else {}))
    return Net(
        module=model,
        sample_rate=model.sample_rate,
        channels=model.channels,
        origin=f"audiovae {model.config.model_dump_json()}",
        reconstruct=lambda x: model(x, sample=True),
        encode=lambda x: model.encode(x).z,
        decode=model.decode,
        weights={},
    )


def oobleck(narrow: bool = False) -> Net:
    """The VAE of Stable Audio Open 1.0: diffusers' defaults are its config."""
    import diffusers

    config = {"encoder_hidden_size": 8, "decoder_channels": 8, "decoder_input_channels": 4}
    peer = diffusers.AutoencoderOobleck(**(config if narrow else {}))

    def reconstruct(x: Tensor) -> Reconstruction:
        posterior = peer.encode(x).latent_dist
        z = posterior.sample()
        moments = (posterior.mean, posterior.logvar)
        return Reconstruction(peer.decode(z).sample, z, (), moments, {})

    return Net(
        module=peer,
        sample_rate=44_100,
        channels=2,
        origin=f"diffusers {diffusers.__version__}",
        reconstruct=reconstruct,
        encode=lambda x: peer.encode(x).latent_dist.mode(),
        decode=lambda z: peer.decode(z).sample,
        weights={},
    )


def dac(narrow: bool = False) -> Net:
    """DAC 44 kHz: mono, nine codebooks."""
    import transformers

    config = {"encoder_hidden_size": 8, "decoder_hidden_size": 64} if narrow else {}
    peer = transformers.DacModel(transformers.DacConfig(sampling_rate=44_100, **config))

    def reconstruct(x: Tensor) -> Reconstruction:
        out = peer(x)
        terms = {"quantizer": out.loss.mean()}  # commitment and codebook loss
        x_hat = out.audio_values.view_as(x)  # the peer drops the one channel
        return Reconstruction(x_hat, out.quantized_representation, (), None, terms)

    return Net(
        module=peer,
        sample_rate=44_100,
        channels=1,
        origin=f"transformers {transformers.__version__}",
        reconstruct=reconstruct,
        encode=lambda x: peer.encode(x).audio_codes,
        decode=lambda codes: peer.decode(audio_codes=codes).audio_values,
        weights={"kl": 0.0, "quantizer": 1.0},
    )


def encodec(narrow: bool = False) -> Net:
    """EnCodec 24 kHz at 6 kb/s: mono, causal; for coding only."""
    import transformers

    config = {"num_filters": 4, "hidden_size": 16} if narrow else {}
    peer = transformers.EncodecModel(transformers.EncodecConfig(**config))
    with torch.no_grad():
        for name, buffer in peer.named_buffers():  # zeros, until k-means fills them in training
            if name.endswith(("embed", "embed_avg")):
                buffer.normal_()

    def reconstruct(x: Tensor) -> Reconstruction:
        raise NotImplementedError("transformers' EnCodec has no commitment loss to train with")

    return Net(
        module=peer,
        sample_rate=24_000,
        channels=1,
        origin=f"transformers {transformers.__version__}",
        reconstruct=reconstruct,
        encode=lambda x: peer.encode(x, bandwidth=6.0),
        decode=lambda e: (
            peer.decode(
                e.audio_codes, e.audio_scales, last_frame_pad_length=e.last_frame_pad_length
            ).audio_values
        ),
        weights={},
    )
