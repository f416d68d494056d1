"""The training loop: it knows steps, checkpoints and signals, and nothing of what it trains.

A step is a pure function of (weights, seed, number of the step): batches are asked for by number and every random
number is drawn from a generator seeded by (seed, step, item).  So the number of the step is all there is to remember
of the data and of chance, and a resumed run is bit for bit the run that was never stopped.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from audiovae.errors import TrainingError
from audiovae.models import Autoencoder
from audiovae.training.checkpoints import RunFolder, Standing, State
from audiovae.training.distributed import World
from audiovae.training.feed import Feed, Part
from audiovae.training.interrupt import Interrupt
from audiovae.training.schedules import Progress
from audiovae.training.tracking import Report, Tracker

SKIPS_IN_A_ROW = 10  # a few bad crops do not end a run; ten in a row are not bad luck
SECONDS_BETWEEN_CHECKPOINTS = 600.0


class Outcome(NamedTuple):
    """What became of one step."""

    logs: dict[str, float]  # terms, weights, rates: all that is worth a curve
    fault: str | None = None  # why the update was skipped; None if it was made


class Task(Protocol):
    """All that the loop knows of what it trains."""

    product: Autoencoder  # what a checkpoint offers for use: the model with averaged weights

    @property
    def cycle(self) -> int:
        """Steps after which the kinds of steps repeat."""
        ...

    def step(self, parts: Sequence[Part], at: Progress) -> Outcome:
        """Make one update from some micro-batches, or skip it and change nothing."""
        ...

    def validate(self, at: Progress) -> Report:
        """Measure the product on the validation clips."""
        ...

    def state_dict(self) -> State:
        """Everything but the product that the next step depends on."""
        ...

    def load_state_dict(self, state: State) -> None:
        """Go back to a state, on this task's device."""
        ...


class Plan(NamedTuple):
    """How long to train and what to do when."""

    total_steps: int
    seed: int
    validate_every: int
    log_every: int
    checkpoint_every: int | None  # None: by the clock

    def validates_after(self, step: int) -> bool:
        """Whether the product is measured when this many steps are done."""
        return step % self.validate_every == 0 or step == self.total_steps

    def saves_after(self, step: int, saved_at: float) -> bool:
        """Whether a checkpoint is due when this many steps are done; it was last made at `saved_at`."""
        if self.checkpoint_every is None:
            due = time.monotonic() - saved_at >= SECONDS_BETWEEN_CHECKPOINTS
        else:
            due = step % self.checkpoint_every == 0
        return due or step == self.total_steps


def train(
    task: Task,
    feed: Feed,
    plan: Plan,
    folder: RunFolder,
    tracker: Tracker,
    world: World,
    interrupt: Interrupt,
) -> Standing:
    """Train from where the folder stands to the end, or to the end of the step in which a signal arrives.

    Returns how far it came.  Raises TrainingError after ten skipped updates in a row, OutputError if a checkpoint
    cannot be written.
    """
    standing, saved_at = folder.standing, time.monotonic()
    for step in range(standing.step, plan.total_steps):
        at, parts = Progress(step, plan.total_steps, plan.seed), feed.parts(step)
        outcome = task.step(parts, at)
        standing = standing.after(skipped=outcome.fault is not None)
        if outcome.fault is not None:
            _report_skip(outcome.fault, parts, standing, tracker, world)
        tracker.step(standing.step, outcome.logs)

        report, improved = None, False
        if world.first and plan.validates_after(standing.step):
            report = task.validate(at._replace(step=standing.step))
            tracker.validated(standing.step, report)
            improved = standing.improved_by(report.score)
            standing = standing.with_best(report.score) if improved else standing

        stopped = world.any(interrupt.requested)
        if world.first and (improved or stopped or plan.saves_after(standing.step, saved_at)):
            tracker.flush()
            statistics = report.statistics if report else None
            folder.save(standing, task.product, statistics, task.state_dict())
            saved_at = time.monotonic()
        if stopped:
            break
    return standing


def _report_skip(
    fault: str, parts: Sequence[Part], standing: Standing, tracker: Tracker, world: World
) -> None:
    """Tell of an update that was not made and of its sounds; end the run after too many in a row."""
    heard = world.gather([part.batch.sources for part in parts])
    sources = [source for process in heard for part in process for source in part]
    tracker.skipped(standing.step, fault, sources)
    if standing.skipped_in_a_row >= SKIPS_IN_A_ROW:
        side = "adversarial.optimizer" if "discriminator" in fault else "optimizer"
        raise TrainingError(
            f"{SKIPS_IN_A_ROW} updates in a row were skipped, the last one at step {standing.step} for a "
            f"{fault} with {', '.join(sources[:3])}; the last checkpoint is whole. Try a lower "
            f"{side}.learning_rate or precision=fp32 in a new run with --init, and look at these sounds "
            "with `audiovae data scan`"
        )
