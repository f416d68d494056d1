"""Oobleck of Stable Audio <-> diffusers' `AutoencoderOobleck`, weight for weight; and from stable-audio-tools.

theirs = AutoencoderOobleck.from_pretrained(...)
config = config_from_diffusers(theirs.config)
model = Oobleck(config)
model.load_state_dict(weights_from_diffusers(theirs.state_dict(), config))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from audiovae.bottlenecks import GaussianConfig
from audiovae.config import parse
from audiovae.errors import ConfigError
from audiovae.interop.keymap import Modules, new_weight_norm, old_weight_norm, rename, spell
from audiovae.interop.waveform_names import CONV, waveform_modules
from audiovae.models.oobleck import Oobleck, OobleckConfig
from audiovae.nn.waveform_stages import DILATIONS

SNAKE = (("alpha", "log_alpha"), ("beta", "log_beta"))

# theirs, ours, what it is; keymap.spell says what the places in braces count
MODULES = waveform_modules(SNAKE, CONV[:2])  # the last has no bias
TOOLS_MODULES = (  # stable-audio-tools
    ("encoder.layers.0", "encoder.first", CONV),
    ("encoder.layers.{i1}.layers.{j}.layers.0", "encoder.stages.{i}.units.{j}.branch.0", SNAKE),
    ("encoder.layers.{i1}.layers.{j}.layers.1", "encoder.stages.{i}.units.{j}.branch.1", CONV),
    ("encoder.layers.{i1}.layers.{j}.layers.2", "encoder.stages.{i}.units.{j}.branch.2", SNAKE),
    ("encoder.layers.{i1}.layers.{j}.layers.3", "encoder.stages.{i}.units.{j}.branch.3", CONV),
    ("encoder.layers.{i1}.layers.3", "encoder.stages.{i}.snake", SNAKE),
    ("encoder.layers.{i1}.layers.4", "encoder.stages.{i}.resample", CONV),
    ("encoder.layers.{n1}", "encoder.snake", SNAKE),
    ("encoder.layers.{n2}", "encoder.last", CONV),
    ("decoder.layers.0", "decoder.first", CONV),
    ("decoder.layers.{i1}.layers.0", "decoder.stages.{i}.snake", SNAKE),
    ("decoder.layers.{i1}.layers.1", "decoder.stages.{i}.resample", CONV),
    ("decoder.layers.{i1}.layers.{j2}.layers.0", "decoder.stages.{i}.units.{j}.branch.0", SNAKE),
    ("decoder.layers.{i1}.layers.{j2}.layers.1", "decoder.stages.{i}.units.{j}.branch.1", CONV),
    ("decoder.layers.{i1}.layers.{j2}.layers.2", "decoder.stages.{i}.units.{j}.branch.2", SNAKE),
    ("decoder.layers.{i1}.layers.{j2}.layers.3", "decoder.stages.{i}.units.{j}.branch.3", CONV),
    ("decoder.layers.{n1}", "decoder.snake", SNAKE),
    ("decoder.layers.{n2}", "decoder.last", CONV[:2]),  # no bias
)
TOOLS_PREFIXES = (  # under which a net lies in a larger checkpoint; the averaged weights are the better ones
    "pretransform.model.",
    "autoencoder_ema.ema_model.",
    "autoencoder.",
)
TOOLS_DEFAULTS = {"channels": 128, "c_mults": [1, 2, 4, 8], "strides": [2, 4, 8, 8]}
TOOLS_FORM = (  # part, setting, its default, what it must be
    ("encoder", "use_snake", False, True),
    ("encoder", "antialias_activation", False, False),
    ("decoder", "use_snake", False, True),
    ("decoder", "antialias_activation", False, False),
    ("decoder", "use_nearest_upsample", False, False),
    ("decoder", "final_tanh", True, False),
)


def weights_from_diffusers(state: Mapping[str, Tensor], config: OobleckConfig) -> dict[str, Tensor]:
    """Rename an `AutoencoderOobleck`'s weights, in either spelling of weight norm, to ours.

    Raises CheckpointError for a key or shape that does not belong to a net of this config.
    """
    return rename(old_weight_norm(state), _names(config, MODULES), _shapes(config))


def weights_to_diffusers(
    state: Mapping[str, Tensor], config: OobleckConfig, *, parametrised: bool = False
) -> dict[str, Tensor]:
    """Rename our weights to an `AutoencoderOobleck`'s; `parametrised`: weight norm's new spelling.

    Raises CheckpointError for a key or shape that does not belong to a net of this config.
    """
    ours = {ours: theirs for theirs, ours in _names(config, MODULES).items()}
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
    bottleneck = config.bottleneck
    if not isinstance(bottleneck, GaussianConfig) or bottleneck.parametrisation != "softplus":
        raise ConfigError(
            f"diffusers needs a gaussian bottleneck with the softplus parametrisation, got {bottleneck.model_dump()}"
        )
    latent_dim = bottleneck.latent_dim
    if config.width != 2 * latent_dim:
        raise ConfigError(
            f"diffusers needs a width of twice latent_dim, got width {config.width} and latent_dim {latent_dim}"
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


def weights_from_stable_audio_tools(
    state: Mapping[str, Tensor], config: OobleckConfig
) -> dict[str, Tensor]:
    """Rename the weights of a stable-audio-tools autoencoder to ours.

    They may stand alone, or in a training's or a whole latent diffusion model's checkpoint; what else is in there is left.
    Raises CheckpointError for a key or shape that does not belong to a net of this config.
    """
    for prefix in TOOLS_PREFIXES:
        inner = {k.removeprefix(prefix): w for k, w in state.items() if k.startswith(prefix)}
        state = inner or state
    whole = {
        name: w[None, :, None] if w.ndim == 1 and name.endswith((".alpha", ".beta")) else w
        for name, w in old_weight_norm(state).items()
    }
    return rename(whole, _names(config, TOOLS_MODULES), _shapes(config))


def config_from_stable_audio_tools(values: Mapping[str, Any]) -> OobleckConfig:
    """The config of the same net.

    `values` is what model_config.json of stable-audio-tools holds, of an autoencoder or of a model with one inside.
    Raises ConfigError if it is none, or describes another net than an Oobleck VAE with Snakes and without tanh.
    """
    try:
        model = values["model"]
        net = model["pretransform"]["config"] if "pretransform" in model else model
        parts = {name: TOOLS_DEFAULTS | net[name]["config"] for name in ("encoder", "decoder")}
        kinds = [net[name]["type"] for name in ("encoder", "decoder", "bottleneck")]
        widths = [parts["encoder"]["latent_dim"], parts["decoder"]["latent_dim"]]
        fields = {"sample_rate": values["sample_rate"], "channels": net["io_channels"]}
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f"not a model_config.json of a stable-audio-tools autoencoder: it lacks {error}"
        ) from None
    if kinds != ["oobleck", "oobleck", "vae"]:
        raise ConfigError(
            f"an oobleck encoder and decoder and a vae bottleneck are known, got {', '.join(kinds)}"
        )
    for part, setting, default, needed in TOOLS_FORM:
        if (got := parts[part].get(setting, default)) != needed:
            raise ConfigError(f"{part}.config.{setting} must be {needed}, got {got}")
    encoder, decoder = parts["encoder"], parts["decoder"]
    for setting in ("c_mults", "strides"):
        if encoder[setting] != decoder[setting]:
            raise ConfigError(
                f"{setting} must be the same in encoder and decoder, "
                f"got {encoder[setting]} and {decoder[setting]}"
            )
    if widths[0] != 2 * widths[1]:
        raise ConfigError(
            f"the encoder's latent_dim must be twice the decoder's, got {widths[0]} and {widths[1]}"
        )
    fields |= {
        "width": encoder["channels"],
        "decoder_width": None
        if decoder["channels"] == encoder["channels"]
        else decoder["channels"],
        "strides": tuple(encoder["strides"]),
        "multiples": tuple(encoder["c_mults"]),
        "bottleneck": GaussianConfig(latent_dim=widths[1], parametrisation="softplus"),
    }
    config: OobleckConfig = parse(OobleckConfig, fields)
    return config


def _names(config: OobleckConfig, modules: Modules) -> dict[str, str]:
    """Every parameter's name: theirs (old weight norm) -> ours."""
    return spell(modules, stages=len(config.strides), units=len(DILATIONS))


def _shapes(config: OobleckConfig) -> dict[str, tuple[int, ...]]:
    """The shape of each of our parameters, without allocating them."""
    with torch.device("meta"):
        return {name: tuple(w.shape) for name, w in Oobleck(config).state_dict().items()}
