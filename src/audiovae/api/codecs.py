"""The codec of a token model: named by a path when it is trained, known by its hash ever after."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audiovae import checkpoint
from audiovae.errors import CheckpointError, ConfigError
from audiovae.models import Autoencoder
from audiovae.models.through_codec import ThroughCodec, named_codec
from audiovae.models.token_transformer import TokenTransformer


def codec_fields(path: str | Path) -> dict[str, Any]:
    """The fields of a token model's config that its codec settles.  Raises ConfigError if it has no codes."""
    codec = checkpoint.load(path)
    expect_discrete(codec, path)
    return {
        "codec": {"path": str(path), "model_hash": codec.model_hash},
        "codebook_sizes": codec.codebook_sizes[0],
        "sample_rate": codec.sample_rate,
        "channels": codec.channels,
        "token_hop": codec.hop_length,
    }


def with_codec(options: Mapping[str, Any]) -> dict[str, Any]:
    """A token model's options with the codec that they name as a path looked up."""
    path = options.get("codec")
    if not isinstance(path, str | Path):
        return dict(options)
    return {**options, **codec_fields(path)}


def expect_discrete(codec: Autoencoder, path: str | Path) -> None:
    """Raise ConfigError unless a model has codes of one level, a frame of them for every hop."""
    levels = codec.codebook_sizes
    if len(levels) != 1:
        raise ConfigError(
            f"a token model needs a codec with codes of one level, {path} has "
            + (
                f"{len(levels)} levels"
                if levels
                else "a continuous latent; train one with a vq, rvq or fsq bottleneck"
            )
        )
    if codec.unit.frames != 1:
        raise ConfigError(
            f"{path} codes whole segments of {codec.unit.samples} samples; a token model needs a codec that codes frames"
        )


def sounding(model: Autoencoder) -> Autoencoder:
    """A model as the verbs take it: a token model with its codec around it, any other as it is.

    Raises CheckpointError if the codec is not where it was, LatentError if there stands another or if there is none.
    """
    if not isinstance(model, TokenTransformer):
        return model
    named = named_codec(model)
    try:
        codec = checkpoint.load(Path(named.path))
    except CheckpointError as error:
        raise CheckpointError(
            f"the token model needs its codec {named.model_hash[:12]}: {error}; put it back there"
        ) from None
    return ThroughCodec(model, codec.to(next(model.parameters()).device))
