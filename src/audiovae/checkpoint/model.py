"""A model on disk is a folder that is whole or not there, holds no code, and notices a single flipped bit.

    config.json              {"format": 1, "model": {...}}
    model.safetensors        the weights
    statistics.safetensors   what the latent looks like over the data, if it was measured
    manifest.json            size and SHA-256 of every file, the format number, and a digest of itself

A run folder holds such folders as checkpoints/step_00001000, with more files for the training to go on, and a
pointer checkpoints/best with the name of one of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from audiovae.checkpoint.folder import FORMAT, Manifest, write_folder
from audiovae.config import parse
from audiovae.errors import CheckpointError, ConfigError, did_you_mean
from audiovae.latents import LatentStatistics
from audiovae.models import PRESETS, AnyModelConfig, Autoencoder, build

BUILT_IN: dict[str, Path] = {}  # name -> model folder: models that come with the package


class Migration(NamedTuple):
    """One renamed weight: in models of `kind` written before `format`, `old` (a regex) is now `new`."""

    format: int
    kind: str
    old: str
    new: str


MIGRATIONS: tuple[
    Migration, ...
] = ()  # in the order of time; each applies to what those above gave


def save_model(
    folder: str | Path,
    model: Autoencoder,
    *,
    statistics: LatentStatistics | None = None,
    extra: Mapping[str, Any] | None = None,
    replace: bool = False,
) -> None:
    """Write a model folder, whole or not at all.

    `extra` adds files by name: a mapping of tensors for a name that ends in .safetensors, anything JSON can hold
    for one that ends in .json.  Raises OutputError if the folder exists (unless `replace`) or cannot be written.
    """
    config = {"format": FORMAT, "model": model.config.model_dump(mode="json")}
    contents: dict[str, Any] = {"config.json": config, "model.safetensors": model.state_dict()}
    if statistics is not None:
        contents["statistics.safetensors"] = statistics.to_tensors()
    write_folder(Path(folder), contents | dict(extra or {}), replace=replace)


def load(path: str | Path, *, device: str | torch.device = "cpu") -> Autoencoder:
    """Load a model for use: a model folder, the best checkpoint of a run folder, or a built-in name.

    The model is in `eval()` and carries `model_hash` and `statistics` (None where none were stored).
    Raises CheckpointError that names the file which is missing, damaged, foreign or too new.
    """
    folder = find(path)
    manifest = Manifest.read(folder)
    tensors = manifest.tensors("model.safetensors")
    model = _build(manifest, tensors)
    model.statistics = None
    if "statistics.safetensors" in manifest.files:
        model.statistics = LatentStatistics.from_tensors(manifest.tensors("statistics.safetensors"))
    model.model_hash = manifest.model_hash
    return model.eval().to(device)


def model_hash(path: str | Path) -> str:
    """SHA-256 over config and weights: the name under which a latent remembers its model."""
    manifest = Manifest.read(find(path))
    for name in ("config.json", "model.safetensors"):
        manifest.content(name)
    return manifest.model_hash


def find(path: str | Path) -> Path:
    """Return the model folder that a path means: itself, or a run's best checkpoint, or else its last.

    A string without a slash is a built-in name.  Raises CheckpointError if there is no model.
    """
    if isinstance(path, str) and not re.search(r"[/\\]", path) and path not in (".", ".."):
        return _built_in(path)
    folder = Path(path)
    if not folder.exists():
        raise CheckpointError(f"there is no {folder}; a run folder or a model folder is expected")
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is a file; a run folder or a model folder is expected")
    if not (folder / "checkpoints").is_dir():
        return folder
    best, steps = best_checkpoint(folder), checkpoints(folder)
    if best is None and not steps:
        raise CheckpointError(
            f"the run {folder} has no checkpoint yet; train on with --resume, or wait for the first one"
        )
    return best or steps[-1]


def checkpoints(run: Path) -> list[Path]:
    """The checkpoint folders of a run, oldest first; whether they are whole is not looked at."""
    return sorted(p for p in (run / "checkpoints").glob("step_*") if p.is_dir())


def best_checkpoint(run: Path) -> Path | None:
    """The checkpoint that the run names as its best, None if it names none."""
    pointer = run / "checkpoints" / "best"
    if not pointer.exists():
        return None
    best = run / "checkpoints" / pointer.read_text(encoding="utf-8").strip()
    if not (best.name.startswith("step_") and best.is_dir()):
        raise CheckpointError(
            f"{pointer} names {best.name}, which is not there; load a step_* folder"
        )
    return best


def load_weights(module: torch.nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Copy tensors into a module.  Raises CheckpointError that names keys or shapes that do not fit."""
    expected = module.state_dict()
    wrong = sorted(expected.keys() ^ tensors.keys()) or sorted(
        name for name, tensor in tensors.items() if tensor.shape != expected[name].shape
    )
    if wrong:
        raise CheckpointError(
            f"{where} does not fit its config: {len(wrong)} weight(s) are missing, unknown or of another "
            f"shape, first {wrong[0]}"
        )
    module.load_state_dict(dict(tensors))


def _build(manifest: Manifest, tensors: dict[str, Tensor]) -> Autoencoder:
    """The model of a folder with its weights, brought up to today's format."""
    values = manifest.json("config.json")["model"]
    for step in MIGRATIONS:
        if manifest.format < step.format and values["kind"] == step.kind:
            tensors = {re.sub(step.old, step.new, name): t for name, t in tensors.items()}
    try:
        model = build(parse(AnyModelConfig, values, "model"))
    except ConfigError as error:
        raise CheckpointError(
            f"{manifest.folder / 'config.json'} names no known model: {error}"
        ) from None
    load_weights(model, tensors, str(manifest.folder / "model.safetensors"))
    return model


def _built_in(name: str) -> Path:
    if name in BUILT_IN:
        return BUILT_IN[name]
    if name in PRESETS:
        raise CheckpointError(
            f"'{name}' is a preset, a model without weights: `audiovae train --model {name} --out RUN` trains "
            "one, then give its run folder"
        )
    if Path(name).is_dir():
        raise CheckpointError(
            f"a word without a slash is a built-in name; write ./{name} for the folder"
        )
    raise CheckpointError(
        f"there is no built-in model '{name}'{did_you_mean(name, [*BUILT_IN, *PRESETS])}; "
        "a folder is written with a slash, such as ./runs"
    )
