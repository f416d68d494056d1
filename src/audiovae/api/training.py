"""The verb that trains: settings from a file and from flags, one config, one run folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from audiovae.api.choices import data_config, merged, model_config, overlaid
from audiovae.api.parameters import DataChoice, ModelChoice, Quiet
from audiovae.api.shell import Fields, Shell
from audiovae.config import parse, read_toml
from audiovae.recipes import Recipe
from audiovae.recipes import recipe as published
from audiovae.training.config import TrainConfig
from audiovae.training.run import run

LENGTHS = {"steps", "minutes"}


def train(
    file: Annotated[
        str | Path | None, Shell(Path, "Settings in TOML; flags win over them.")
    ] = None,
    *,
    recipe: Annotated[
        Recipe | None,
        Shell(Recipe | None, "Train as a published system was; a file and flags win over it."),
    ] = None,
    model: ModelChoice = None,
    data: DataChoice = None,
    out: Annotated[
        str | Path | None,
        Shell(Path, "The run folder; by default one in runs/ with a telling name."),
    ] = None,
    resume: Annotated[
        bool, Shell(bool, "Go on from the newest whole checkpoint of --out.")
    ] = False,
    quiet: Quiet = False,
    **settings: Annotated[Any, Fields(TrainConfig)],
) -> Path:
    """Train a model on a folder of sounds or on built-in data.

    `settings` are fields of `TrainConfig`, such as minutes=20 or objective={"free_bits": 0.1}. Returns the run
    folder, which `load` and every other verb takes as a model.
    """
    layers = [
        published(recipe) if recipe is not None else {},
        read_toml(Path(file)) if file is not None else {},
        settings,
    ]
    given: dict[str, Any] = {}
    chosen: dict[str, Any] = {"model": None, "data": None}
    for layer in layers:
        given = overlaid(_without_length(given, layer), layer)
        chosen = {name: merged(before, layer.get(name)) for name, before in chosen.items()}
    chosen = {"model": merged(chosen["model"], model), "data": merged(chosen["data"], data)}
    if chosen["model"] is not None:
        given["model"] = model_config(chosen["model"])
    if chosen["data"] is not None:
        given["data"] = data_config(chosen["data"])
    config: TrainConfig | None = parse(TrainConfig, given) if given else None
    folder = Path(out) if out is not None else _run_folder(config or TrainConfig())
    return run(config, folder, resume=resume, quiet=quiet)


def _without_length(given: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without their length, if those above say another: steps and minutes exclude each other."""
    if not LENGTHS & above.keys():
        return given
    return {name: value for name, value in given.items() if name not in LENGTHS}


def _run_folder(config: TrainConfig) -> Path:
    """runs/MODEL-DATA-HASH; the hash is over what differs from the defaults."""
    model, data = config.model.kind, config.data
    name = Path(data.path).resolve().name if data.kind == "folder" else data.kind
    unusual = config.model_dump(mode="json", exclude_defaults=True)
    digest = hashlib.sha256(json.dumps(unusual, sort_keys=True).encode()).hexdigest()[:8]
    folder = Path("runs") / f"{model}-{name}-{digest}"
    folder.parent.mkdir(exist_ok=True)
    return folder
