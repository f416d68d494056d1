"""Oobleck of Stable Audio <-> diffusers' `AutoencoderOobleck`, weight for weight.

theirs = AutoencoderOobleck.from_pretrained(...)
config = config_from_diffusers(theirs.config)
model = Oobleck(config)
model.load_state_dict(weights_from_diffusers(theirs.state_dict(), config))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from audiovae.bottlenecks import GaussianConfig
from audiovae.config import parse
from audiovae.errors import ConfigError
from audiovae.interop.keymap import new_weight_norm, old_weight_norm, rename
from audiovae.models.oobleck import Oobleck, OobleckConfig
from audiovae.nn.waveform_stages import DILATIONS

CONV = (
    ("weight_g", "parametrizations.weight.original0"),
    ("weight_v", "parametrizations.weight.original1"),
    ("bias", "bias"),
)
SNAKE = (("alpha", "log_alpha"), ("beta", "log_beta"))

# theirs, ours, what it is; {i} counts the stages from 0, {n} the units from 1 and {j} from 0
MODULES = (
    ("encoder.conv1", "encoder.first", CONV),
    ("encoder.block.{i}.res_unit{n}.snake1", "encoder.stages.{i}.units.{j}.branch.0", SNAKE),
    ("encoder.block.{i}.res_unit{n}.conv1", "encoder.stages.{i}.units.{j}.branch.1", CONV),
    ("encoder.block.{i}.res_unit{n}.snake2", "encoder.stages.{i}.units.{j}.branch.2", SNAKE),
    ("encoder.block.{i}.res_unit{n}.conv2", "encoder.stages.{i}.units.{j}.branch.3", CONV),
    ("encoder.block.{i}.snake1", "encoder.stages.{i}.snake", SNAKE),
    ("encoder.block.{i}.conv1", "encoder.stages.{i}.resample", CONV),
    ("encoder.snake1", "encoder.snake", SNAKE),
    ("encoder.conv2", "encoder.last", CONV),
    ("decoder.conv1", "decoder.first", CONV),
    ("decoder.block.{i}.snake1", "decoder.stages.{i}.snake", SNAKE),
    ("decoder.block.{i}.conv_t1", "decoder.stages.{i}.resample", CONV),
    ("decoder.block.{i}.res_unit{n}.snake1", "decoder.stages.{i}.units.{j}.branch.0", SNAKE),
    ("decoder.block.{i}.res_unit{n}.conv1", "decoder.stages.{i}.units.{j}.branch.1", CONV),
    ("decoder.block.{i}.res_unit{n}.snake2", "decoder.stages.{i}.units.{j}.branch.2", SNAKE),
    ("decoder.block.{i}.res_unit{n}.conv2", "decoder.stages.{i}.units.{j}.branch.3", CONV),
    ("decoder.snake1", "decoder.snake", SNAKE),
    ("decoder.conv2", "decoder.last", CONV[:2]),  # no bias
)


def weights_from_diffusers(state: Mapping[str, Tensor], config: OobleckConfig) -> dict[str, Tensor]:
    """Rename an `AutoencoderOobleck`'s weights, in either spelling of weight norm, to ours.

    Raises CheckpointError for a key or shape that does not belong to a net of this config.
    """
    return rename(old_weight_norm(state), dict(_names(config)), _shapes(config))


def weights_to_diffusers(
    state: Mapping[str, Tensor], config: OobleckConfig, *, parametrised: bool = False
) -> dict[str, Tensor]:
    """Rename our weights to an `AutoencoderOobleck`'s; `parametrised`: weight norm's new spelling.

    Raises CheckpointError for a key or shape that does not belong to a net of this config.
    """
    ours = {ours: theirs for theirs, ours in _names(config)}
    shapes = {ours[name]: shape for name, shape in _shapes(config).items()}
    renamed = rename(state, ours, shapes)
    return new_weight_norm(renamed) if parametrised else renamed


def config_from_diffusers(values: Mapping[str, Any]) -> OobleckConfig:
    """The config of the same net.

    `values` is the config of an `AutoencoderOobleck`; raises ConfigError if it is none, or of a net
    whose widths ours cannot have.
    """
    try:
        width, latent_dim = values["encoder_hidden_size"], values["decoder_input_channels"]
        decoder_width = values["decoder_channels"]
        fields = {
            "sample_rate": values["sampling_rate"],
            "channels": values["audio_channels"],
            "width": width,
            "decoder_width": None if decoder_width == width else decoder_width,
            "strides": tuple(values["downsampling_ratios"]),
            "multiples": tuple(values["channel_multiples"]),
        }
    except KeyError as error:
        raise ConfigError(
            f"not a config of diffusers' AutoencoderOobleck: it lacks {error}"
        ) from None
    if width != 2 * latent_dim:  # diffusers' encoder ends in as many channels as it begins with
        raise ConfigError(
            "encoder_hidden_size must be twice decoder_input_channels, "
            f"got {width} and {latent_dim}"
        )
    bottleneck = GaussianConfig(latent_dim=latent_dim, parametrisation="softplus")
    config: OobleckConfig = parse(OobleckConfig, {**fields, "bottleneck": bottleneck})
    return config


def config_to_diffusers(config: OobleckConfig) -> dict[str, Any]:
    """The arguments of an `AutoencoderOobleck` of the same net.

    Raises ConfigError where it has none: its encoder always ends in `width` channels.
    """
    latent_dim = config.bottleneck.latent_dim
    if config.width != 2 * latent_dim or config.bottleneck.parametrisation != "softplus":
        raise ConfigError(
            "diffusers needs a width of twice latent_dim and the softplus parametrisation, got width "
            f"{config.width}, latent_dim {latent_dim} and {config.bottleneck.parametrisation}"
        )
    return {
        "encoder_hidden_size": config.width,
        "downsampling_ratios": list(config.strides),
        "channel_multiples": list(config.multiples),
        "decoder_channels": config.decoder_width or config.width,
        "decoder_input_channels": latent_dim,
        "audio_channels": config.channels,
        "sampling_rate": config.sample_rate,
    }


def _names(config: OobleckConfig) -> Iterator[tuple[str, str]]:
    """Every parameter's name: theirs (old weight norm), ours."""
    for theirs, ours, parameters in MODULES:
        stages = range(len(config.strides)) if "{i}" in ours else range(1)
        units = range(len(DILATIONS)) if "{j}" in ours else range(1)
        for i in stages:
            for j in units:
                for their_parameter, our_parameter in parameters:
                    yield (
                        theirs.format(i=i, n=j + 1) + "." + their_parameter,
                        ours.format(i=i, j=j) + "." + our_parameter,
                    )


def _shapes(config: OobleckConfig) -> dict[str, tuple[int, ...]]:
    """The shape of each of our parameters, without allocating them."""
    with torch.device("meta"):
        return {name: tuple(w.shape) for name, w in Oobleck(config).state_dict().items()}
