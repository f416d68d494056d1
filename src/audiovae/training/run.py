"""A training run from its settings to a run folder, new or resumed, in one process or many.

config.json      every setting, the number of steps and the fingerprint of the data
log.jsonl        one line for every few steps and for every validation
checkpoints/     see audiovae.training.checkpoints
tensorboard/     curves and audio
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from torch import Tensor

from audiovae.checkpoint import checkpoints as saved_in
from audiovae.checkpoint import load
from audiovae.config import parse
from audiovae.data import Dataset
from audiovae.errors import ConfigError, MissingPackageError, OutputError, TrainingError
from audiovae.models import Autoencoder, build
from audiovae.nn.noise import mix
from audiovae.paths import replacing
from audiovae.training.autoencoder import AutoencoderTask
from audiovae.training.checkpoints import RunFolder
from audiovae.training.config import (
    ACCEPTED,
    HARMLESS,
    RUN_CONFIG,
    RunRecord,
    TrainConfig,
    continued,
    differences,
)
from audiovae.training.device import choose_device, own_threads_and_chance
from audiovae.training.display import Display
from audiovae.training.distributed import World, joined
from audiovae.training.feed import Feed
from audiovae.training.interrupt import Interrupt
from audiovae.training.loop import Plan, train
from audiovae.training.pace import VALIDATIONS, measure
from audiovae.training.schedules import Progress
from audiovae.training.tokens import open_for, task_of
from audiovae.training.tracking import Board, Log, Sink, Tracker

WEIGHTS, CODES = 0, 7  # streams of random numbers: of fresh weights, of codes that k-means places
LOOKS = 8  # batches that a fresh model is calibrated on


def run(
    config: TrainConfig | None,
    out: str | Path,
    *,
    resume: bool = False,
    quiet: bool = False,
) -> Path:
    """Train, and return the run folder; with `resume` go on from its newest whole checkpoint.

    A resumed run without a config keeps its own; one that is finished returns at once.  After a signal the process ends
    with 128 + its number (Ctrl-C 130, SIGTERM 143), a checkpoint written.
    Raises ConfigError, DataError, OutputError, CheckpointError or TrainingError; each says what to do.
    """
    folder = Path(out)
    with joined() as world:
        voice = Voice(Console(stderr=True, quiet=not world.first, soft_wrap=True), quiet)
        record = world.from_first(lambda: _record_of(config, folder, resume))
        config = _settings(config, record, voice)
        device = choose_device(config.device, world)
        with own_threads_and_chance(config.threads, device):
            _run(config, record, folder, device, world, voice)
    return folder


class Voice(NamedTuple):
    """How a run speaks outside its progress display."""

    console: Console
    quiet: bool

    def say(self, text: str) -> None:
        """Tell how it goes, unless told to be quiet."""
        if not self.quiet:
            self.warn(text)

    def warn(self, text: str) -> None:
        """Tell what a person must know."""
        self.console.print(text, markup=False, highlight=False)


def _run(
    config: TrainConfig,
    record: RunRecord | None,
    folder: Path,
    device: torch.device,
    world: World,
    voice: Voice,
) -> None:
    """Make or restore what is trained, settle the number of steps, and train."""
    checkpoints = RunFolder(folder, config.keep_last)
    total = record.total_steps if record is not None else 0
    # asked of the first process alone: the others may lie on a machine without the folder
    if world.from_first(lambda: total > 0 and checkpoints.has_whole(total)):
        voice.say(f"{folder} is finished: all of its {total} steps are done")
        return
    fresh = world.from_first(lambda: not saved_in(folder))
    model = _model(config, record, fresh)
    config = config.model_copy(update={"model": model.config})
    data = world.first_goes_first(lambda: _open(config, record))
    voice.say(data.describe())
    if fresh and config.init is None:
        model.calibrate(_first_look(data, config), mix(config.seed, CODES))
    init_hash = model.model_hash
    task = task_of(model)(model, data, config, device, world)
    state = world.from_first(lambda: checkpoints.restore(task.product, voice.warn))
    checkpoints.standing = world.from_first(lambda: checkpoints.standing)
    if state is not None:
        task.load_state_dict(state)

    shares = world.share(config.batch_size, config.accumulate)
    with Feed(data, config.seed, shares, device, _ahead(config, device)) as feed:
        if record is None:
            total, every = _length(config, task, feed, world)
            record = RunRecord(
                config=config,
                total_steps=total,
                validate_every=every,
                fingerprint=data.fingerprint,
                init_hash=init_hash,
            )
        plan, done = _plan(config, record), checkpoints.standing.step
        voice.say(f"steps {done} to {plan.total_steps} in {folder}")
        last = Progress(plan.total_steps - 1, plan.total_steps, plan.seed)
        if config.adversarial is not None and not config.adversarial.begins(last):
            voice.say(
                f"the discriminators begin at step {config.adversarial.first_step(plan.total_steps):,}, after this run's "
                "end; lower adversarial.start to train against them"
            )
        if world.first:
            _write(record.model_copy(update={"config": config}), folder)
        with closing(_tracker(config, plan, checkpoints, voice, world)) as tracker:
            _train(task, feed, plan, checkpoints, tracker, world)


def _train(
    task: AutoencoderTask,
    feed: Feed,
    plan: Plan,
    checkpoints: RunFolder,
    tracker: Tracker,
    world: World,
) -> None:
    """Train; after a signal leave the process with its code."""
    with Interrupt(tracker.note) as interrupt:
        try:
            standing = train(task, feed, plan, checkpoints, tracker, world, interrupt)
        except OSError as error:
            raise OutputError(
                f"the run {checkpoints.path} stopped: {error}; its last checkpoint is whole, go on with --resume"
            ) from error
    if standing.step < plan.total_steps:
        raise SystemExit(interrupt.exit_code)


def _record_of(config: TrainConfig | None, folder: Path, resume: bool) -> RunRecord | None:
    """The record of the run to resume; None for a new run."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; a run needs a folder of its own")
    record = RunRecord.read(folder)
    if record is not None and not resume:
        raise OutputError(
            f"{folder} holds a run already; go on with --resume, or name another folder"
        )
    if record is None and resume and config is None:  # else a slip would train on the defaults
        raise OutputError(f"there is no run in {folder} to resume; with its settings, one begins")
    return record


def _settings(
    given: TrainConfig | None,
    record: RunRecord | None,
    voice: Voice,
) -> TrainConfig:
    """The settings to train with: those given, over those of the run that is resumed."""
    if record is None:
        return given or TrainConfig()
    if given is None:
        return record.config
    settings, refused = continued(record.config, given), []
    for name, before, now in differences(record.config.model_dump(mode="json"), settings):
        if name in ACCEPTED:
            voice.say(
                f"{name} changes from {before} to {now}: the run is no longer what it would have been"
            )
        elif name not in HARMLESS:
            refused.append(f"{name} was {before}, now {now}")
    if refused:
        raise ConfigError(
            f"a resumed run keeps its settings: {'; '.join(refused)}. Leave them out, or start another run "
            "with --init"
        )
    return parse(TrainConfig, settings)


def _model(config: TrainConfig, record: RunRecord | None, fresh: bool) -> Autoencoder:
    """A model with the weights to start from: fresh ones by the seed, or those of `init`; any before a checkpoint's."""
    if config.init is None or not fresh:
        torch.manual_seed(mix(config.seed, WEIGHTS))
        return build(config.model)
    model = load(config.init)
    if record is not None and record.init_hash != model.model_hash:
        raise TrainingError(
            f"init {config.init} is not what it was when this run began, and the run has no checkpoint yet; "
            "start it anew in another folder"
        )
    if "model" in config.model_fields_set and model.config != config.model:
        raise ConfigError(
            f"init {config.init} is another model than the settings name; leave the model's settings out, "
            "they come from it"
        )
    return model


def _open(config: TrainConfig, record: RunRecord | None) -> Dataset:
    data = open_for(config.model, config.data)
    if record is not None and data.fingerprint != record.fingerprint:
        raise TrainingError(
            "the data is not what it was when this run began, so it cannot go on exactly; bring the files "
            "back, or start another run with --init and this one's folder"
        )
    return data


def _first_look(data: Dataset, config: TrainConfig) -> Iterator[Tensor]:
    """The sounds of the first steps, the same in every process."""
    for step in range(LOOKS):
        yield data.train_batch(config.seed, step, range(config.batch_size)).x


def _length(
    config: TrainConfig, task: AutoencoderTask, feed: Feed, world: World
) -> tuple[int, int]:
    """The number of steps, as given or as many as fit into the minutes, and of those between two validations."""
    if config.steps is not None:
        return config.steps, -(-config.steps // VALIDATIONS)
    seconds = 60 * config.length_in_minutes
    return measure(task, feed, config.seed, seconds, world).plan(seconds)


def _plan(config: TrainConfig, record: RunRecord) -> Plan:
    return Plan(
        total_steps=record.total_steps,
        seed=config.seed,
        validate_every=config.validate_every or record.validate_every,
        log_every=config.log_every,
        checkpoint_every=config.checkpoint_every,
    )


def _write(record: RunRecord, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / RUN_CONFIG) as temporary:
            temporary.write_text(record.to_json(), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write the run folder {folder}: {error.strerror}") from error


def _ahead(config: TrainConfig, device: torch.device) -> int:
    """Batches to make ahead: on a CPU none, where a step is slower if it has to share the cores."""
    if config.prefetch is not None:
        return config.prefetch
    return 0 if device.type == "cpu" else 2


def _board(config: TrainConfig, folder: Path, done: int, voice: Voice) -> list[Sink]:
    """The TensorBoard writer; none, with a word about it, where it is not installed and was not asked for."""
    try:
        return [Board(folder / "tensorboard", config.model.sample_rate, done)]
    except MissingPackageError as error:
        if config.tensorboard:
            raise
        voice.say(str(error))
        return []


def _tracker(
    config: TrainConfig, plan: Plan, checkpoints: RunFolder, voice: Voice, world: World
) -> Tracker:
    """Log, board and display of a run, from where it stands on; none in the other processes."""
    folder, done, sinks = checkpoints.path, checkpoints.standing.step, list[Sink]()
    if world.first:
        sinks.append(Log(folder / "log.jsonl", keep_to=done))
        if config.tensorboard is not False:
            sinks += _board(config, folder, done, voice)
        if not voice.quiet:
            sinks.append(Display(plan.total_steps, done, voice.console))
    seconds = config.batch_size * config.data.segment_seconds
    return Tracker(
        sinks, every=plan.log_every, done=done, total=plan.total_steps, audio_seconds=seconds
    )
