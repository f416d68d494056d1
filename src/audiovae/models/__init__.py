"""Model families: a config class, a model class and a preset function each.

A preset is a function that returns a config; `resolve` calls it by name with its own arguments and then sets fields of
the config that it returned, so that `{"size": 2, "kernel_size": 5}` is one flat table.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import Discriminator, ValidationError, create_model

from audiovae.config import Config, parse
from audiovae.errors import ConfigError, did_you_mean
from audiovae.models.base import Autoencoder, Context, ModelConfig, Reconstruction
from audiovae.models.dac import DAC, DACConfig, dac_16k, dac_24k, dac_44k
from audiovae.models.encodec import Encodec, EncodecConfig, encodec_24k, encodec_48k
from audiovae.models.hierarchy import Hierarchy, HierarchyConfig, hierarchy
from audiovae.models.jukebox import Jukebox, JukeboxConfig, jukebox
from audiovae.models.mimi import Mimi, MimiConfig, mimi
from audiovae.models.oobleck import Oobleck, OobleckConfig, oobleck
from audiovae.models.rave import RaveV2, RaveV2Config, rave_v2
from audiovae.models.spec_conv import SpecConv, SpecConvConfig, spec_conv
from audiovae.models.spec_frame import SpecFrame, SpecFrameConfig, spec_frame
from audiovae.models.token_transformer import (
    TokenTransformer,
    TokenTransformerConfig,
    token_transformer,
)
from audiovae.models.wave_ar import WaveVAE, WaveVAEConfig, wave_vae

__all__ = [
    "DAC",
    "MODELS",
    "PRESETS",
    "AnyModelConfig",
    "Autoencoder",
    "Context",
    "DACConfig",
    "Encodec",
    "EncodecConfig",
    "Hierarchy",
    "HierarchyConfig",
    "Jukebox",
    "JukeboxConfig",
    "Mimi",
    "MimiConfig",
    "ModelConfig",
    "Oobleck",
    "OobleckConfig",
    "RaveV2",
    "RaveV2Config",
    "Reconstruction",
    "SpecConv",
    "SpecConvConfig",
    "SpecFrame",
    "SpecFrameConfig",
    "TokenTransformer",
    "TokenTransformerConfig",
    "WaveVAE",
    "WaveVAEConfig",
    "build",
    "resolve",
]

AnyModelConfig = Annotated[
    SpecFrameConfig
    | SpecConvConfig
    | OobleckConfig
    | DACConfig
    | EncodecConfig
    | RaveV2Config
    | JukeboxConfig
    | HierarchyConfig
    | MimiConfig
    | WaveVAEConfig
    | TokenTransformerConfig,
    Discriminator("kind"),
]

MODELS: dict[str, tuple[type[ModelConfig], type[Autoencoder]]] = {
    "spec_frame": (SpecFrameConfig, SpecFrame),
    "spec_conv": (SpecConvConfig, SpecConv),
    "oobleck": (OobleckConfig, Oobleck),
    "dac": (DACConfig, DAC),
    "encodec": (EncodecConfig, Encodec),
    "rave_v2": (RaveV2Config, RaveV2),
    "jukebox": (JukeboxConfig, Jukebox),
    "hierarchy": (HierarchyConfig, Hierarchy),
    "mimi": (MimiConfig, Mimi),
    "wave_vae": (WaveVAEConfig, WaveVAE),
    "token_transformer": (TokenTransformerConfig, TokenTransformer),
}

PRESETS: dict[str, Callable[..., ModelConfig]] = {
    "spec_frame": spec_frame,
    "spec_conv": spec_conv,
    "oobleck": oobleck,
    "dac_44k": dac_44k,
    "dac_24k": dac_24k,
    "dac_16k": dac_16k,
    "encodec_24k": encodec_24k,
    "encodec_48k": encodec_48k,
    "rave_v2": rave_v2,
    "jukebox": jukebox,
    "hierarchy": hierarchy,
    "mimi": mimi,
    "wave_vae": wave_vae,
    "token_transformer": token_transformer,
}


def build(config: ModelConfig) -> Autoencoder:
    """Build the model that a config describes, with fresh weights."""
    _, model = MODELS[config.kind]  # type: ignore[attr-defined]
    return model(config)


def resolve(name: str, options: Mapping[str, Any] | None = None) -> ModelConfig:
    """Return the config of preset `name`: its arguments, then fields of the config, from one table.

    Raises ConfigError for an unknown preset or option (with the closest known one) and for a value that cannot be.
    """
    if name not in PRESETS:
        raise ConfigError(f"model '{name}' is not a preset{did_you_mean(name, PRESETS)}")
    preset, options = PRESETS[name], dict(options or {})
    arguments = {key: options.pop(key) for key in list(options) if key in preset_arguments(name)}
    checked: Config = parse(_argument_model(name), arguments, "model")
    try:
        config = preset(**checked.model_dump(exclude_unset=True))
    except (ConfigError, ValidationError, ValueError) as error:
        raise ConfigError(f"model {name}: {_first_line(error)}") from None
    fields = set(type(config).model_fields) - {"kind"}
    for key in options:
        if key.split(".")[0] not in fields:
            known = fields | set(preset_arguments(name))
            raise ConfigError(f"model.{key} is not a setting of {name}{did_you_mean(key, known)}")
    merged = _merge(config.model_dump(), options)
    resolved: ModelConfig = parse(type(config), merged, "model")
    return resolved


def preset_arguments(name: str) -> dict[str, inspect.Parameter]:
    """The arguments of a preset function by name."""
    return dict(inspect.signature(PRESETS[name], eval_str=True).parameters)


def _argument_model(name: str) -> type[Config]:
    """A config class with a preset's arguments, so that pydantic checks them and reads them from text."""
    fields: dict[str, Any] = {
        key: (parameter.annotation, parameter.default)
        for key, parameter in preset_arguments(name).items()
    }
    return create_model(f"{name}_arguments", __base__=Config, **fields)


def _merge(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Set dotted keys and nested tables over a nested dict.  A table of another kind begins with its own defaults."""
    merged = dict(base)
    for key, value in sorted(changes.items(), key=lambda change: not change[0].endswith("kind")):
        head, _, rest = key.partition(".")
        inner = {rest: value} if rest else value
        if isinstance(inner, Mapping) and isinstance(merged.get(head), dict):
            same = inner.get("kind", merged[head].get("kind")) == merged[head].get("kind")
            inner = _merge(merged[head] if same else {}, inner)
        merged[head] = inner
    return merged


def _first_line(error: Exception) -> str:
    """What a pydantic or plain error says, in one line."""
    if isinstance(error, ValidationError):
        return "; ".join(e["msg"] for e in error.errors())
    return str(error)
