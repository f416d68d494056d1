"""What a run tells people: a JSONL log, TensorBoard files with audio, and a live display.

The log is part of the result: when a run is resumed, lines beyond its checkpoint are dropped, so the steps in the log
are those of a run that was never stopped.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from torch import Tensor

from audiovae.errors import MissingPackageError
from audiovae.latents import LatentStatistics
from audiovae.paths import replacing

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Report(NamedTuple):
    """What a validation found."""

    score: float  # lower is better: decides which checkpoint is the best
    figures: dict[str, float]
    clips: Sequence[tuple[Tensor, Tensor]] = ()  # (x, x_hat), [C, T] each, to listen to
    alarms: Sequence[str] = ()  # what a person should know now
    statistics: LatentStatistics | None = None  # of the latent over the clips


class Sink(Protocol):
    """Something that is told how the training goes."""

    def step(self, step: int, logs: dict[str, float]) -> None: ...
    def skipped(self, step: int, fault: str, sources: Sequence[str]) -> None: ...
    def validated(self, step: int, report: Report) -> None: ...
    def note(self, text: str) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


class Tracker:
    """Tells several sinks the same; adds the rate in seconds of audio per second."""

    def __init__(
        self, sinks: Sequence[Sink], *, every: int, done: int, total: int, audio_seconds: float
    ) -> None:
        self.sinks = sinks
        self.every = every  # steps between two lines
        self.total = total
        self.audio_seconds = audio_seconds  # in one step
        self._since = (done, time.perf_counter())

    def step(self, step: int, logs: dict[str, float]) -> None:
        """Tell of a step, if it is one of those that are logged."""
        if step % self.every and step != self.total:
            return
        (first, then), now = self._since, time.perf_counter()
        self._since = (step, now)
        if step > first:
            logs = {**logs, "rate": (step - first) * self.audio_seconds / (now - then)}
        for sink in self.sinks:
            sink.step(step, logs)

    def skipped(self, step: int, fault: str, sources: Sequence[str]) -> None:
        """Tell of an update that was not made, and of the sounds in it."""
        for sink in self.sinks:
            sink.skipped(step, fault, sources)

    def validated(self, step: int, report: Report) -> None:
        """Tell what a validation found; its time does not count for the rate."""
        for sink in self.sinks:
            sink.validated(step, report)
        self._since = (step, time.perf_counter())

    def note(self, text: str) -> None:
        """Tell a person something in words."""
        for sink in self.sinks:
            sink.note(text)

    def flush(self) -> None:
        """Bring everything to the disk: called before a checkpoint."""
        for sink in self.sinks:
            sink.flush()

    def close(self) -> None:
        """End; the sinks are not used again."""
        for sink in self.sinks:
            sink.close()


class Log:
    """log.jsonl: one object a line, {"step": ...} with the figures of a step or of a validation."""

    def __init__(self, path: Path, keep_to: int) -> None:
        self.path = path
        kept = []
        if path.exists():
            with open(path, encoding="utf-8") as lines:
                kept = [line for line in lines if _step_of(line) <= keep_to]
        with replacing(path) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")
        self._file = open(path, "a", encoding="utf-8")

    def step(self, step: int, logs: dict[str, float]) -> None:
        self._write({"step": step, **logs})

    def skipped(self, step: int, fault: str, sources: Sequence[str]) -> None:
        self._write({"step": step, "skipped": fault, "sources": list(sources)})

    def validated(self, step: int, report: Report) -> None:
        line = {"step": step, "validation": report.figures, "alarms": list(report.alarms)}
        if report.statistics is not None:
            line["kl_per_dimension"] = report.statistics.kl.tolist()  # nats per frame
        self._write(line)

    def note(self, text: str) -> None:
        """Words are for people; the log holds figures."""

    def flush(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(_finite(line), allow_nan=False) + "\n")
        self._file.flush()


class Board:
    """TensorBoard files: curves of every figure, and the validation clips to listen to."""

    def __init__(self, folder: Path, sample_rate: int, from_step: int) -> None:
        self.sample_rate = sample_rate
        self._writer: SummaryWriter = _summary_writer(folder, from_step)

    def step(self, step: int, logs: dict[str, float]) -> None:
        self._curves("train", logs, step)

    def skipped(self, step: int, fault: str, sources: Sequence[str]) -> None:
        self._writer.add_text("skipped", f"{fault}: {', '.join(sources)}", step)

    def validated(self, step: int, report: Report) -> None:
        self._curves("validation", report.figures, step)
        if report.statistics is not None:
            self._writer.add_histogram("validation/kl_per_dimension", report.statistics.kl, step)
        for number, (x, x_hat) in enumerate(report.clips):
            for name, sound in (("original", x), ("reconstruction", x_hat)):
                self._writer.add_audio(
                    f"clip_{number}/{name}", sound.mean(0).clamp(-1, 1), step, self.sample_rate
                )

    def note(self, text: str) -> None:
        """Words are for people; the board holds curves."""

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _curves(self, group: str, figures: dict[str, float], step: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(f"{group}/{name}", value, step)


def _summary_writer(folder: Path, from_step: int) -> SummaryWriter:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingPackageError(
            "TensorBoard files need one more package: pip install 'audiovae[train]', or set tensorboard=false"
        ) from None
    return SummaryWriter(str(folder), purge_step=from_step + 1)


def _step_of(line: str) -> float:
    """The step of a log line; infinity for one that was cut off."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _finite(value: Any) -> Any:
    """JSON has no NaN: a figure that is not finite becomes null."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
