"""From a name, or a name with options, to a config: what `--model NAME --model.size 2` and `--data ./music` mean.

"oobleck"                          a preset, or a kind of data
"./music"                          with a slash: a folder of sounds
{"preset": "oobleck", "size": 2}   with options: what the shell's flags and a TOML table say
{"kind": "oobleck", ...}           every field, as a run folder stores it
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from audiovae.api.codecs import with_codec
from audiovae.config import Config, parse
from audiovae.data import DATA, DataSettings
from audiovae.errors import ConfigError, did_you_mean
from audiovae.models import AnyModelConfig, ModelConfig, resolve

DEFAULT_MODEL = "spec_frame"
NAMES = {"preset", "kind", "path"}  # the options that say which one it is
DEFAULT_DATA = "notes"


def model_config(choice: str | Mapping[str, Any] | Config | None) -> ModelConfig:
    """The config of a model.  Raises ConfigError for an unknown name, option or value."""
    if isinstance(choice, ModelConfig):
        return choice
    options = with_codec(_options(choice, "model"))
    if "kind" in options:
        whole: ModelConfig = parse(AnyModelConfig, options, "model")
        return whole
    return resolve(options.pop("preset", DEFAULT_MODEL), options)


def data_config(choice: str | Mapping[str, Any] | Config | None) -> DataSettings:
    """The config of a data set.  Raises ConfigError for an unknown name, option or value."""
    if isinstance(choice, DataSettings):
        return choice
    options = _options(choice, "data")
    if "preset" in options:
        options = _named(str(options.pop("preset"))) | options
    kind = options.setdefault("kind", "folder" if "path" in options else DEFAULT_DATA)
    if kind not in DATA:
        raise ConfigError(
            f"data.kind '{kind}' is not a kind of data{did_you_mean(str(kind), DATA)}"
        )
    config: DataSettings = parse(DATA[kind], options, "data")
    return config


def merged(
    below: str | Mapping[str, Any] | Config | None, above: str | Mapping[str, Any] | Config | None
) -> str | Mapping[str, Any] | Config | None:
    """A choice with another laid over it: options alone change it, a name of its own replaces what it names."""
    if above is None or below is None:
        return below if above is None else above
    if isinstance(below, Mapping) and not NAMES & below.keys() and not isinstance(above, Config):
        return overlaid(below, _options(above, ""))  # options that were waiting for a name
    if isinstance(above, Mapping) and not NAMES & above.keys():
        base = below.model_dump() if isinstance(below, Config) else _options(below, "")
        return overlaid(base, above)
    return above


def overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """A table with the values of another, table by table."""
    result = dict(below)
    for key, value in above.items():
        inner = result.get(key)
        both = isinstance(value, Mapping) and isinstance(inner, Mapping)
        result[key] = overlaid(inner, value) if both else value  # type: ignore[arg-type]
    return result


def _options(choice: str | Mapping[str, Any] | Config | None, where: str) -> dict[str, Any]:
    """A choice as a table of its own."""
    if isinstance(choice, str | os.PathLike):
        return {"preset": os.fspath(choice)}
    if choice is None or isinstance(choice, Mapping):
        return dict(choice or {})
    raise ConfigError(f"{where} is a name or a table of options, got {choice!r}")


def _named(word: str) -> dict[str, Any]:
    """What a word means as data: with a slash a folder, without one a kind."""
    if "/" in word or os.sep in word or word in (".", ".."):
        return {"kind": "folder", "path": word}
    if word in DATA and word != "folder":
        return {"kind": word}
    if os.path.isdir(word):
        raise ConfigError(
            f"a word without a slash is a built-in name; write ./{word} for the folder"
        )
    names = [name for name in DATA if name != "folder"]
    raise ConfigError(
        f"there is no built-in data '{word}'{did_you_mean(word, names)}; write ./{word} for a folder"
    )
