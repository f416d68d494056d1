"""The verb that trains: settings from a file and from flags, one config, one run folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from audiovae.api.choices import data_config, merged, model_config, overlaid
from audiovae.api.parameters import DataChoice, ModelChoice
from audiovae.api.shell import Fields, Shell
from audiovae.config import parse, read_toml
from audiovae.training.config import RunRecord, TrainConfig
from audiovae.training.run import run


def train(
    file: Annotated[
        str | Path | None, Shell(Path, "Settings in TOML; flags win over them.")
    ] = None,
    *,
    model: ModelChoice = None,
    data: DataChoice = None,
    out: Annotated[
        str | Path | None,
        Shell(Path, "The run folder; by default one in runs/ with a telling name."),
    ] = None,
    resume: Annotated[
        bool, Shell(bool, "Go on from the newest whole checkpoint of --out.")
    ] = False,
    quiet: bool = False,
    **settings: Annotated[Any, Fields(TrainConfig)],
) -> Path:
    """Train a model on a folder of sounds or on built-in data.

    `settings` are fields of `TrainConfig`, such as minutes=20 or objective={"free_bits": 0.1}. Returns the run
    folder, which `load` and every other verb takes as a model.
    """
    given = overlaid(read_toml(Path(file)) if file is not None else {}, settings)
    given["model"] = merged(given.get("model"), model)
    given["data"] = merged(given.get("data"), data)
    stored = RunRecord.read(Path(out)) if resume and out is not None else None
    config = _config(given, stored.config if stored else None)
    return run(config, out if out is not None else _run_folder(config), resume=resume, quiet=quiet)


def _config(given: Mapping[str, Any], stored: TrainConfig | None) -> TrainConfig:
    """The whole of a run's settings: what is given, over what a resumed run has stored."""
    base = {name: getattr(stored, name) for name in TrainConfig.model_fields} if stored else {}
    table = overlaid(
        {name: _table(value) for name, value in base.items()},
        {name: value for name, value in given.items() if value is not None},
    )
    for name, choose in (("model", model_config), ("data", data_config)):
        named = given.get(name)
        table[name] = choose(base.get(name) if named is None else named)
    config: TrainConfig = parse(TrainConfig, table)
    return config


def _table(value: Any) -> Any:
    """A nested config as a table."""
    return value.model_dump() if hasattr(value, "model_dump") else value


def _run_folder(config: TrainConfig) -> Path:
    """runs/MODEL-DATA-HASH; the hash is over what differs from the defaults."""
    model, data = config.model.kind, config.data
    name = Path(data.path).resolve().name if data.kind == "folder" else data.kind
    unusual = config.model_dump(mode="json", exclude_defaults=True)
    digest = hashlib.sha256(json.dumps(unusual, sort_keys=True).encode()).hexdigest()[:8]
    folder = Path("runs") / f"{model}-{name}-{digest}"
    folder.parent.mkdir(exist_ok=True)
    return folder
