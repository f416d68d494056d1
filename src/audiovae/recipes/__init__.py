"""The trainings of published systems as settings: losses, weights, optimizers, crops and schedules, each in a TOML file."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, Literal, get_args

from audiovae.config import parse_toml
from audiovae.errors import ConfigError, did_you_mean

Recipe = Literal["dac_44k", "encodec_24k", "rave_v2", "stable_audio"]
RECIPES: tuple[str, ...] = get_args(Recipe)


def recipe(name: str) -> dict[str, Any]:
    """The settings of a recipe.  Raises ConfigError for a name that there is not."""
    if name not in RECIPES:
        raise ConfigError(
            f"there is no recipe '{name}'{did_you_mean(name, RECIPES)}; there are {', '.join(RECIPES)}"
        )
    text = files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8")
    return parse_toml(text, f"the recipe {name}")
