"""Train a model for some minutes on real music and score what comes back of held-out clips.

Shared by `quality_per_minute` and `front_end`. Minutes are turned into steps by the training's own measured warm-up, so
leave the machine alone. A run is a folder in the cache that can be stopped and resumed; a row is written once scored.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from _music import fetch
from _timing import open_results, paragraph, write_page
from torch import Tensor

import audiovae
from audiovae.data import FolderData, open_dataset
from audiovae.evaluation import score
from audiovae.evaluation.report import ResultsFile, config_hash
from audiovae.models import Autoencoder
from audiovae.paths import cache_folder
from audiovae.training.config import RunRecord, TrainConfig
from audiovae.training.run import run

ConfigOf = Callable[[str, float], TrainConfig]  # of a row and its minutes
CLIP_SECONDS = 10.0
CLIPS = 12
# Of a run's config what decides what is learned: a row is known by it, besides its name and minutes
PARTS = ("model", "objective", "data", "optimizer", "adversarial", "batch_size")
PLACES = ("path", "valid", "soundfont")  # where data and codec lie is this machine's affair


def compare(
    doc: str,
    title: str,
    rows: Iterable[str],
    config_of: ConfigOf,
    work: Callable[[TrainConfig], Mapping[str, Any]],
    minutes: float,
) -> None:
    """The command line of a benchmark whose rows are trainings: train and score what is missing, write the page, print it."""
    parser = argparse.ArgumentParser(description=doc.split("\n")[0])
    name = Path(sys.argv[0]).stem
    parser.add_argument("--minutes", type=float, default=minutes)
    parser.add_argument("--rows", nargs="+", choices=list(rows), default=list(rows))
    parser.add_argument("--out", type=Path, default=Path(f"docs/results/{name}.json"))
    options = parser.parse_args()
    results = open_results(options.out)
    for row in options.rows:
        config = config_of(row, options.minutes)
        key = {"row": row, "minutes": options.minutes, **identity(config)}
        shown = results.row(key, lambda config=config: work(config))  # type: ignore[misc]
        print(_shown(shown), flush=True)
    newest = {(config["row"], config["minutes"]): config for config in results.configs}
    lengths = sorted({minutes for _, minutes in newest})
    keys = [newest[row, m] for m in lengths for row in rows if (row, m) in newest]
    print(page(results, title, doc, keys))


def identity(config: TrainConfig) -> dict[str, Any]:
    """What a row is known by, and asked for anew when it changes."""
    parts: dict[str, Any] = _placeless(config.model_dump(mode="json", include=set(PARTS)))
    return parts


def _placeless(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: _placeless(v) for name, v in value.items() if name not in PLACES}


def page(
    results: ResultsFile, title: str, doc: str | None, keys: Iterable[Mapping[str, Any]]
) -> str:
    """Write the page that quotes the rows of these keys; return it."""
    rows = [_shown(row) for key in keys if (row := results.find(key)) is not None]
    return write_page(results, title, paragraph(doc), rows, threads=torch.get_num_threads())


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a table shows of a row."""
    return {name: value for name, value in row.items() if name not in PARTS}


def music(**settings: Any) -> FolderData:
    """The benchmark's music, as training reads it."""
    return FolderData(path=str(fetch()), **({"valid_crops": 16} | settings))


def trained(config: TrainConfig) -> Autoencoder:
    """Train (or resume, or find done) the run of a config; the model of its best step."""
    folder = run_folder(config)
    begun = RunRecord.read(folder) is not None
    run(None if begun else config, folder, resume=begun)
    return audiovae.load(folder)


def run_folder(config: TrainConfig) -> Path:
    """Where the run of a config lies."""
    return cache_folder() / "benchmark-runs" / config_hash(config.model_dump(mode="json"))


def scored(metrics: tuple[str, ...]) -> Callable[[TrainConfig], dict[str, Any]]:
    """What trains the run of a config and scores its reconstruction of held-out clips."""

    def work(config: TrainConfig) -> dict[str, Any]:
        model = trained(config)
        record = RunRecord.read(run_folder(config))
        statistics = model.statistics
        return {
            "weights_m": sum(p.numel() for p in model.parameters()) / 1e6,
            "steps": record.total_steps if record else None,
            **held_out_scores(model, metrics),
            "active_units": int((statistics.mean_variance > 0.01).sum()) if statistics else None,
            "kl_nats_s": float(statistics.kl.sum()) * model.frame_rate if statistics else None,
        }

    return work


def held_out_scores(model: Autoencoder, metrics: tuple[str, ...]) -> dict[str, float]:
    """The mean of each metric over clips of music that no training has seen."""
    data = open_dataset(
        music(valid_seconds=CLIP_SECONDS, valid_crops=CLIPS),
        sample_rate=model.sample_rate,
        channels=model.channels,
    )
    return mean_scores(model, (batch.x for batch in data.valid_batches(1)), metrics)


@torch.no_grad()
def mean_scores(
    model: Autoencoder, clips: Iterable[Tensor], metrics: tuple[str, ...]
) -> dict[str, float]:
    """The mean of each metric over clips [B, C, T], coded by the posterior's mean or in codes."""
    rows = []
    for x in clips:
        x_hat = model.decode(model.encode(x).z, x.shape[-1])
        rows.append(score(x, x_hat, model.sample_rate, metrics))
    return {name: sum(row[name] for row in rows) / len(rows) for name in metrics}
