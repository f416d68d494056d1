"""The verb for a first look: train for minutes on instrument notes, then write a page to listen to."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch

from audiovae import checkpoint
from audiovae.api.choices import data_config, model_config
from audiovae.api.opening import computing
from audiovae.api.parameters import DataChoice, Device, Force, ModelChoice, Seed, Threads
from audiovae.api.shell import Shell
from audiovae.api.showcase import Trial, showcase
from audiovae.api.training import train
from audiovae.data.notes import NotesData, NotesDataset, open_notes
from audiovae.errors import ConfigError, OutputError
from audiovae.evaluation import score
from audiovae.evaluation.page import render
from audiovae.evaluation.picture import expect_matplotlib
from audiovae.latents import LatentFit, LatentStatistics
from audiovae.models import Autoencoder, ModelConfig
from audiovae.paths import replacing
from audiovae.training.diagnostics import ACTIVE_VARIANCE

SPEED_SECONDS = 10.0  # of sound, to time coding with


class Demo(NamedTuple):
    """What the demo made."""

    report: Path  # the page
    run: Path  # the run folder: a model for every other verb
    figures: dict[str, float]  # mel, stft, si_sdr, kl, active_units, encode_speed, decode_speed

    def describe(self) -> str:
        """Two lines for people."""
        return f"open {self.report} in a browser; the model is {self.run}"


def demo(
    out: Annotated[str | Path, Shell(Path, "The folder for the page and the run.")] = "demo",
    *,
    minutes: Annotated[float, Shell(float, "How long to train.")] = 3.0,
    steps: Annotated[int | None, Shell(int, "How many steps to train, instead of minutes.")] = None,
    model: ModelChoice = None,
    data: DataChoice = None,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = None,
    force: Force = False,
    quiet: bool = False,
) -> Demo:
    """Train on instrument notes for minutes and write a page to listen to.

    The notes are rendered from a SoundFont into the cache first, which takes half a minute the first time.
    Raises MissingPackageError before anything is computed if a package is not there, OutputError if `out` holds a
    demo already (unless `force`), ConfigError for data other than notes.
    """
    expect_matplotlib()
    notes = data_config(data)
    if not isinstance(notes, NotesData):
        raise ConfigError(
            f"the demo compares held-out notes and wants notes, not {notes.model_dump()['kind']}; "
            "for other sounds use `audiovae train` and `audiovae reconstruct`"
        )
    if model is not None:
        _expect_showable(model_config(model))
    folder = Path(out)
    _make_free(folder, force)
    length: dict[str, Any] = {"minutes": minutes} if steps is None else {"steps": steps}
    began = time.monotonic()
    run = train(
        model=model,
        data=notes,
        out=folder / "run",
        quiet=quiet,
        seed=seed,
        device=device,
        threads=threads,
        tensorboard=False,
        **length,
    )
    seconds = time.monotonic() - began
    with computing(threads):
        trained = checkpoint.load(run, device="cpu").eval()
        held_out = open_notes(
            notes,
            sample_rate=trained.sample_rate,
            channels=trained.channels,
            multiple_of=trained.hop_length,
        )
        figures, statistics = _measure(trained, held_out)
        trial = Trial(trained, held_out, run, figures, statistics, seconds)
        page = render(showcase(trial, seed))
    report = folder / "report.html"
    with replacing(report) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return Demo(report, run, figures)


def _expect_showable(config: ModelConfig) -> None:
    """Raise ConfigError unless the page can play notes of any length through it and draw from its latent."""
    if getattr(config, "clip_seconds", None) is not None:
        raise ConfigError(
            "the demo plays notes of any length, and this model takes clips of one; leave clip_seconds out"
        )
    if config.bottleneck.kind != "gaussian":
        raise ConfigError(
            f"the demo draws from a Gaussian latent, and this model's bottleneck is {config.bottleneck.kind}; for codes "
            "use `audiovae train`, `audiovae reconstruct` and `audiovae diagnose`"
        )


def _make_free(folder: Path, force: bool) -> None:
    """Make room for the run and the page; nothing but an earlier run and its page is removed."""
    run, report = folder / "run", folder / "report.html"
    if (run.exists() or report.exists()) and not force:
        raise OutputError(
            f"{folder} holds a demo already; --force replaces it, --out names another"
        )
    if run.exists():
        if not (run / "config.json").is_file():
            raise OutputError(f"{run} is not a training run, so it is not replaced; move it away")
        shutil.rmtree(run)
    report.unlink(missing_ok=True)


def _measure(model: Autoencoder, data: NotesDataset) -> tuple[dict[str, float], LatentStatistics]:
    """The figures over the held-out notes, and what they do to the latent."""
    fit = LatentFit(model.latent_dim)
    sums: dict[str, float] = {}
    count = 0
    for batch in data.valid_batches(8):
        bottled = model.encode(batch.x)
        if bottled.moments is not None:
            fit.update(*bottled.moments)
        x_hat = model.decode(bottled.z, batch.x.shape[-1])
        for name, value in score(batch.x, x_hat, model.sample_rate).items():
            sums[name] = sums.get(name, 0.0) + value * len(batch.x)
        count += len(batch.x)
    statistics = fit.statistics()
    figures = {name: total / count for name, total in sums.items()}
    figures["kl"] = float(statistics.kl.sum()) * model.frame_rate
    figures["active_units"] = float((statistics.mean_variance > ACTIVE_VARIANCE).sum())
    figures["encode_speed"], figures["decode_speed"] = _speeds(model)
    return figures, statistics


def _speeds(model: Autoencoder) -> tuple[float, float]:
    """Seconds of sound encoded and decoded per second: the best of three, after one to warm up."""
    x = 0.1 * torch.randn(1, model.channels, round(SPEED_SECONDS * model.sample_rate))
    times: dict[str, list[float]] = {"encode": [], "decode": []}
    for _ in range(4):
        started = time.perf_counter()
        z = model.encode(x).z
        encoded = time.perf_counter()
        model.decode(z, x.shape[-1])
        times["encode"].append(encoded - started)
        times["decode"].append(time.perf_counter() - encoded)
    encode, decode = (SPEED_SECONDS / min(values[1:]) for values in times.values())
    return encode, decode
