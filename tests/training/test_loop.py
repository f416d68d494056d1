"""The loop with a task of a few numbers: what it does when, and what it remembers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from audiovae.checkpoint import checkpoints
from audiovae.data import SynthData, open_dataset
from audiovae.models import Autoencoder, build, resolve
from audiovae.training import loop
from audiovae.training.checkpoints import Best, RunFolder, Standing, State
from audiovae.training.distributed import ALONE
from audiovae.training.feed import Feed, Part
from audiovae.training.interrupt import Interrupt
from audiovae.training.loop import Outcome, Plan, Report, train
from audiovae.training.pace import Pace, measure
from audiovae.training.schedules import Progress
from audiovae.training.tracking import Tracker

PLAN = Plan(total_steps=9, seed=0, validate_every=3, log_every=1, checkpoint_every=4)


class Sums:
    """Adds up the samples it gets; its score falls, then rises, then is not a number."""

    cycle = 1

    def __init__(self) -> None:
        self.product: Autoencoder = build(resolve("spec_frame", {"size": 0}))
        self.total = torch.zeros((), dtype=torch.float64)
        self.scores = {3: 2.0, 6: 1.0, 9: float("nan")}
        self.steps: list[int] = []

    def step(self, parts: Sequence[Part], at: Progress) -> Outcome:
        self.steps.append(at.step)
        self.total += sum(part.batch.x.double().sum() for part in parts)
        return Outcome({"total": float(self.total)})

    def validate(self, at: Progress) -> Report:
        return Report(self.scores.get(at.step, 5.0), {})

    def state_dict(self) -> State:
        return State({"total": self.total}, {"anything": [1, "b"]})

    def load_state_dict(self, state: State) -> None:
        self.total = state.tensors["total"].clone()


@pytest.fixture
def feed() -> Any:
    data = open_dataset(SynthData(segment_seconds=0.02), sample_rate=8_000, channels=1)
    with Feed(data, 0, [range(2)], torch.device("cpu"), ahead=2) as feed:
        yield feed


def trained(task: Sums, feed: Feed, folder: RunFolder, plan: Plan = PLAN) -> Standing:
    tracker = Tracker([], every=1, done=0, total=plan.total_steps, audio_seconds=1.0)
    with Interrupt(print) as interrupt:
        return train(task, feed, plan, folder, tracker, ALONE, interrupt)


def test_checkpoints_come_when_due_or_best_and_the_best_and_last_stay(
    tmp_path: Path, feed: Feed
) -> None:
    folder = RunFolder(tmp_path, keep_last=1)
    saved: list[int] = []
    save = folder.save
    folder.save = lambda standing, *rest: saved.append(standing.step) or save(standing, *rest)  # type: ignore[method-assign, func-returns-value]
    standing = trained(Sums(), feed, folder)
    assert saved == [3, 4, 6, 8, 9]  # 3 and 6 were the best so far
    assert standing == Standing(9, Best(6, 1.0), 0)
    assert [f.name for f in checkpoints(tmp_path)] == ["step_00000006", "step_00000009"]
    assert (tmp_path / "checkpoints" / "best").read_text() == "step_00000006\n"


def test_a_restored_task_asks_for_the_steps_that_are_left(tmp_path: Path, feed: Feed) -> None:
    first, again = Sums(), Sums()
    trained(first, feed, RunFolder(tmp_path), PLAN)
    for name in ("step_00000008", "step_00000009"):
        newest = tmp_path / "checkpoints" / name
        (newest / "training.json").write_text("{}")
    folder, warnings = RunFolder(tmp_path), list[str]()
    state = folder.restore(again.product, warnings.append)
    assert state is not None and state.values == {"anything": [1, "b"]}
    assert folder.standing == Standing(6, Best(6, 1.0), 0)
    assert len(warnings) == 2 and "step_00000009/training.json is damaged" in warnings[0]
    again.load_state_dict(state)
    trained(again, feed, folder)
    assert again.steps == [6, 7, 8]
    assert torch.equal(again.total, first.total)


def test_a_folder_without_checkpoints_starts_at_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.restore(Sums().product, print) is None
    assert folder.standing == Standing()


def test_by_the_clock_a_checkpoint_comes_every_ten_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = PLAN._replace(checkpoint_every=None)
    monkeypatch.setattr(loop.time, "monotonic", lambda: 1_000.0)
    assert plan.saves_after(5, saved_at=400.0) and not plan.saves_after(5, saved_at=401.0)
    assert plan.saves_after(9, saved_at=1_000.0)  # the end


def test_a_score_that_is_no_number_is_never_the_best() -> None:
    assert Standing().improved_by(3.0) and not Standing().improved_by(float("nan"))
    best = Standing(5).with_best(3.0)
    assert best.improved_by(2.9) and not best.improved_by(3.0)


def test_measuring_leaves_no_trace(feed: Feed) -> None:
    task = Sums()
    task.step(feed.parts(0), Progress(0, 9, 0))
    before = task.total.clone()
    pace = measure(task, feed, 0, seconds=2.0, world=ALONE)
    assert torch.equal(task.total, before)
    assert 0 < pace.step < pace.measuring < 2.0
    assert len(task.steps) <= 1 + 22


def test_steps_of_a_cycle_are_timed_together_and_late_ones_first(feed: Feed) -> None:
    task = Sums()
    task.cycle = 3
    measure(task, feed, 0, seconds=2.0, world=ALONE)
    timed = task.steps[2:]
    assert len(timed) >= 3
    assert timed[0] >= 600 and timed[0] % 3 == 0 and timed[:3] == [timed[0] + n for n in range(3)]


@pytest.mark.parametrize(
    ("pace", "seconds", "expected"),
    [
        (Pace(0.5, 0.1), 100.0, (196, 10)),  # twenty validations, 2 s in all
        (Pace(0.5, 5.0), 100.0, (180, 90)),  # two, a tenth of the time
        (Pace(0.5, 500.0), 100.0, (1, 1)),  # never none
        (Pace(0.5, 0.1, measuring=20.0), 100.0, (156, 8)),
    ],
)
def test_the_number_of_steps_fills_the_time(
    pace: Pace, seconds: float, expected: tuple[int, int]
) -> None:
    assert pace.plan(seconds) == expected


def test_batches_made_ahead_are_those_asked_for_one_by_one(feed: Feed) -> None:
    with Feed(feed.data, 0, [range(2)], torch.device("cpu"), ahead=0) as alone:
        for step in (0, 1, 2, 7, 3):
            ours, theirs = feed.parts(step)[0], alone.parts(step)[0]
            assert torch.equal(ours.batch.x, theirs.batch.x)
            assert ours.items == theirs.items == range(2)


def test_an_error_made_ahead_arrives_with_its_step(feed: Feed) -> None:
    make = feed._make

    def breaks(step: int) -> Any:
        if step == 2:
            raise OSError("the disk is gone")
        return make(step)

    feed._make = breaks  # type: ignore[method-assign]
    feed.parts(0)
    feed.parts(1)
    with pytest.raises(OSError, match="the disk is gone"):
        feed.parts(2)
