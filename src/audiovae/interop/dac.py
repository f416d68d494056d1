"""DAC <-> transformers' `DacModel` and the original descript-audio-codec, weight for weight.

theirs = DacModel.from_pretrained(...)
config = config_from_transformers(theirs.config.to_dict())
model = DAC(config)
model.load_state_dict(weights_from_transformers(theirs.state_dict(), config))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from audiovae.bottlenecks import RVQConfig
from audiovae.config import parse
from audiovae.errors import ConfigError
from audiovae.interop.keymap import (
    Modules,
    fold_weight_norm,
    new_weight_norm,
    old_weight_norm,
    rename,
    spell,
    unfold_weight_norm,
)
from audiovae.interop.waveform_names import CONV, waveform_modules
from audiovae.models.dac import DAC, DACConfig, dac_bottleneck
from audiovae.nn.waveform_stages import DILATIONS

SNAKE = (("alpha", "alpha"),)
CODEBOOK = (("weight", "vectors"),)
TRAINING_ONLY = (".codebook.counts", ".codebook.sums", ".codebook.initialised")  # of ours

# theirs, ours, what it is; keymap.spell says what the places in braces count
QUANTIZERS = (  # the same names in both
    ("quantizer.quantizers.{k}.in_proj", "bottleneck.layers.{k}.input", CONV),
    ("quantizer.quantizers.{k}.out_proj", "bottleneck.layers.{k}.output", CONV),
    ("quantizer.quantizers.{k}.codebook", "bottleneck.layers.{k}.codebook", CODEBOOK),
)
TRANSFORMERS = (*waveform_modules(SNAKE, CONV), *QUANTIZERS)
ORIGINAL = (
    ("encoder.block.0", "encoder.first", CONV),
    ("encoder.block.{i1}.block.{j}.block.0", "encoder.stages.{i}.units.{j}.branch.0", SNAKE),
    ("encoder.block.{i1}.block.{j}.block.1", "encoder.stages.{i}.units.{j}.branch.1", CONV),
    ("encoder.block.{i1}.block.{j}.block.2", "encoder.stages.{i}.units.{j}.branch.2", SNAKE),
    ("encoder.block.{i1}.block.{j}.block.3", "encoder.stages.{i}.units.{j}.branch.3", CONV),
    ("encoder.block.{i1}.block.3", "encoder.stages.{i}.snake", SNAKE),
    ("encoder.block.{i1}.block.4", "encoder.stages.{i}.resample", CONV),
    ("encoder.block.{n1}", "encoder.snake", SNAKE),
    ("encoder.block.{n2}", "encoder.last", CONV),
    *QUANTIZERS,
    ("decoder.model.0", "decoder.first", CONV),
    ("decoder.model.{i1}.block.0", "decoder.stages.{i}.snake", SNAKE),
    ("decoder.model.{i1}.block.1", "decoder.stages.{i}.resample", CONV),
    ("decoder.model.{i1}.block.{j2}.block.0", "decoder.stages.{i}.units.{j}.branch.0", SNAKE),
    ("decoder.model.{i1}.block.{j2}.block.1", "decoder.stages.{i}.units.{j}.branch.1", CONV),
    ("decoder.model.{i1}.block.{j2}.block.2", "decoder.stages.{i}.units.{j}.branch.2", SNAKE),
    ("decoder.model.{i1}.block.{j2}.block.3", "decoder.stages.{i}.units.{j}.branch.3", CONV),
    ("decoder.model.{n1}", "decoder.snake", SNAKE),
    ("decoder.model.{n2}", "decoder.last", CONV),
)
ORIGINAL_DEFAULTS = {  # of the arguments of `dac.DAC`, which older files do not name
    "encoder_dim": 64,
    "encoder_rates": [2, 4, 8, 8],
    "latent_dim": None,
    "decoder_dim": 1536,
    "decoder_rates": [8, 8, 4, 2],
    "n_codebooks": 9,
    "codebook_size": 1024,
    "codebook_dim": 8,
    "sample_rate": 44_100,
}


def weights_from_transformers(state: Mapping[str, Tensor], config: DACConfig) -> dict[str, Tensor]:
    """Rename a `DacModel`'s weights to ours, weight norm folded (as it saves them) or in either spelling.

    Raises CheckpointError for a key or shape that does not belong to a net of this config.
    """
    return _to_ours(state, config, TRANSFORMERS)


def weights_to_transformers(state: Mapping[str, Tensor], config: DACConfig) -> dict[str, Tensor]:
    """Rename our weights to a `DacModel`'s, weight norm folded, as it expects them.

    Raises CheckpointError for a key or shape that does not belong to a net of this config.
    """
    return fold_weight_norm(_to_theirs(state, config, TRANSFORMERS))


def weights_from_original(state: Mapping[str, Tensor], config: DACConfig) -> dict[str, Tensor]:
    """Rename the weights of descript-audio-codec's `DAC`, in either spelling of weight norm, to ours.

    Raises CheckpointError for a key or shape that does not belong to a net of this config.
    """
    return _to_ours(state, config, ORIGINAL)


def weights_to_original(
    state: Mapping[str, Tensor], config: DACConfig, *, parametrised: bool = False
) -> dict[str, Tensor]:
    """Rename our weights to those of descript-audio-codec; `parametrised`: weight norm's new spelling.

    Raises CheckpointError for a key or shape that does not belong to a net of this config.
    """
    renamed = _to_theirs(state, config, ORIGINAL)
    return new_weight_norm(renamed) if parametrised else renamed


def config_from_transformers(values: Mapping[str, Any]) -> DACConfig:
    """The config of the same net; `values` is a `DacConfig` as a dict.  Raises ConfigError if it is none."""
    try:
        width, strides = values["encoder_hidden_size"], values["downsampling_ratios"]
        latent_dim = values.get("hidden_size", width << len(strides))
        sizes = [values[name] for name in ("n_codebooks", "codebook_size", "codebook_dim")]
        fields = {
            "sample_rate": values["sampling_rate"],
            "width": width,
            "decoder_width": values["decoder_hidden_size"],
            "strides": tuple(strides),
        }
    except KeyError as error:
        raise ConfigError(f"not a config of transformers' DacModel: it lacks {error}") from None
    return _config(fields, latent_dim, *sizes)


def config_to_transformers(config: DACConfig) -> dict[str, Any]:
    """The arguments of a `DacConfig` of the same net.  Raises ConfigError where it has none."""
    bottleneck = _expect_form(config)
    latent_dim = config.encoder_widths[-1]
    if bottleneck.latent_dim != latent_dim:
        raise ConfigError(
            f"transformers has only latents as wide as the encoder's end, {latent_dim}, "
            f"got latent_dim {bottleneck.latent_dim}"
        )
    if bottleneck.codebook_size & (bottleneck.codebook_size - 1):
        raise ConfigError(
            f"transformers needs a codebook_size that is a power of 2, got {bottleneck.codebook_size}"
        )
    return {
        "encoder_hidden_size": config.width,
        "downsampling_ratios": list(config.strides),
        "decoder_hidden_size": config.decoder_width,
        "n_codebooks": bottleneck.n_codebooks,
        "codebook_size": bottleneck.codebook_size,
        "codebook_dim": bottleneck.codebook_dim,
        "quantizer_dropout": bottleneck.dropout,
        "sampling_rate": config.sample_rate,
    }


def config_from_original(values: Mapping[str, Any]) -> DACConfig:
    """The config of the same net; `values` are arguments of descript-audio-codec's `DAC`, as its files hold them.

    Raises ConfigError for a net that ours cannot be.
    """
    known: dict[str, Any] = {**ORIGINAL_DEFAULTS, **values}
    strides, sizes = list(known["encoder_rates"]), known["codebook_dim"]
    if list(known["decoder_rates"]) != strides[::-1]:
        raise ConfigError(
            f"decoder_rates must be encoder_rates backwards, got {known['decoder_rates']} for {strides}"
        )
    dims = {sizes} if isinstance(sizes, int) else set(sizes)
    if len(dims) != 1:
        raise ConfigError(f"codebook_dim must be the same for every codebook, got {sizes}")
    fields = {
        "sample_rate": known["sample_rate"],
        "width": known["encoder_dim"],
        "decoder_width": known["decoder_dim"],
        "strides": tuple(strides),
    }
    latent_dim = known["latent_dim"] or known["encoder_dim"] << len(strides)
    return _config(fields, latent_dim, known["n_codebooks"], known["codebook_size"], dims.pop())


def config_to_original(config: DACConfig) -> dict[str, Any]:
    """The arguments of descript-audio-codec's `DAC` of the same net.  Raises ConfigError where it has none."""
    bottleneck = _expect_form(config)
    return {
        "encoder_dim": config.width,
        "encoder_rates": list(config.strides),
        "latent_dim": bottleneck.latent_dim,
        "decoder_dim": config.decoder_width,
        "decoder_rates": list(config.strides[::-1]),
        "n_codebooks": bottleneck.n_codebooks,
        "codebook_size": bottleneck.codebook_size,
        "codebook_dim": bottleneck.codebook_dim,
        "quantizer_dropout": bottleneck.dropout,
        "sample_rate": config.sample_rate,
    }


def _config(fields: Mapping[str, Any], latent_dim: int, *sizes: int) -> DACConfig:
    config: DACConfig = parse(
        DACConfig, {**fields, "bottleneck": dac_bottleneck(latent_dim, *sizes).model_dump()}
    )
    return config


def _expect_form(config: DACConfig) -> RVQConfig:
    """The bottleneck, if it and the channels are as in the published nets."""
    bottleneck = config.bottleneck
    if (
        not isinstance(bottleneck, RVQConfig)
        or not bottleneck.normalise
        or bottleneck.codebook_dim is None
        or bottleneck.shared_projection
    ):
        raise ConfigError(
            "other toolkits' DAC has an rvq bottleneck with normalise, a codebook_dim and a projection for each "
            f"codebook, got {bottleneck.model_dump()}"
        )
    if config.channels != 1:
        raise ConfigError(f"other toolkits' DAC has one channel, got {config.channels}")
    return bottleneck


def _to_ours(state: Mapping[str, Tensor], config: DACConfig, modules: Modules) -> dict[str, Tensor]:
    names = _names(config, modules)
    return rename(unfold_weight_norm(old_weight_norm(state), names), names, _shapes(config))


def _to_theirs(
    state: Mapping[str, Tensor], config: DACConfig, modules: Modules
) -> dict[str, Tensor]:
    ours = {ours: theirs for theirs, ours in _names(config, modules).items()}
    kept = {name: w for name, w in state.items() if not name.endswith(TRAINING_ONLY)}
    shapes = {
        ours[name]: shape
        for name, shape in _shapes(config).items()
        if not name.endswith(TRAINING_ONLY)
    }
    return rename(kept, ours, shapes)


def _names(config: DACConfig, modules: Modules) -> dict[str, str]:
    """Every parameter's name: theirs (old weight norm) -> ours."""
    return spell(
        modules,
        stages=len(config.strides),
        units=len(DILATIONS),
        codebooks=_expect_form(config).n_codebooks,
    )


def _shapes(config: DACConfig) -> dict[str, tuple[int, ...]]:
    """The shape of each of our parameters, without allocating them."""
    with torch.device("meta"):
        return {name: tuple(w.shape) for name, w in DAC(config).state_dict().items()}
