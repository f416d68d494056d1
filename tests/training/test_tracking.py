"""The log keeps the steps of the run that was never stopped; the display says what matters, in both forms."""

from __future__ import annotations

import builtins
import io
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from audiovae.errors import MissingPackageError
from audiovae.latents import LatentFit
from audiovae.training.config import TrainConfig
from audiovae.training.display import Display
from audiovae.training.run import run
from audiovae.training.tracking import Board, Log, Report, Tracker

REPORT = Report(
    1.5,
    {"mel": 1.5, "active_units": 7.0},
    [(torch.zeros(2, 800), 2 * torch.ones(2, 800))],
    ["posterior-collapse: 0 of 8, since step 3. Lower beta"],
)


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_lines_beyond_the_checkpoint_and_a_torn_line_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = Log(path, keep_to=0)
    for step in (2, 4, 6):
        log.step(step, {"loss": 1.0 / step})
    log.validated(6, REPORT)
    log.close()
    with open(path, "a") as file:
        file.write('{"step": 6, "los')  # killed in the middle of a line
    log = Log(path, keep_to=4)
    assert steps(path) == [2, 4]
    log.step(6, {"loss": 0.1})
    log.flush()
    assert steps(path) == [2, 4, 6]  # flushed line by line
    log.close()


def test_a_line_is_json_even_where_a_figure_is_not_finite(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.jsonl", keep_to=0)
    log.step(1, {"loss": math.nan, "norm": math.inf, "beta": 0.5})
    log.skipped(1, "non-finite loss", ["a.wav@0.5"])
    log.validated(1, REPORT)
    log.note("words")
    log.close()

    def refuse(name: str) -> Any:
        raise AssertionError(name)

    lines = [json.loads(line, parse_constant=refuse) for line in open(tmp_path / "log.jsonl", "rb")]
    assert lines == [
        {"step": 1, "loss": None, "norm": None, "beta": 0.5},
        {"step": 1, "skipped": "non-finite loss", "sources": ["a.wav@0.5"]},
        {"step": 1, "validation": REPORT.figures, "alarms": list(REPORT.alarms)},
    ]


def test_the_kl_of_each_dimension_goes_into_the_log(tmp_path: Path) -> None:
    """In nats per frame, by the dimensions' order: which of them are used, and since when."""
    fit = LatentFit(3)
    mu = torch.tensor([2.0, 0.0, 1.0]).view(1, 3, 1).expand(2, 3, 5)
    fit.update(mu, torch.zeros_like(mu))
    log = Log(tmp_path / "log.jsonl", keep_to=0)
    log.validated(1, REPORT._replace(statistics=fit.statistics()))
    log.close()
    assert json.loads((tmp_path / "log.jsonl").read_text())["kl_per_dimension"] == [2.0, 0.0, 0.5]


class Heard:
    """A sink that remembers the steps it was told of."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, dict[str, float]]] = []

    def step(self, step: int, logs: dict[str, float]) -> None:
        self.steps.append((step, logs))

    def validated(self, step: int, report: Report) -> None:
        """Nothing to remember."""


def test_the_rate_counts_the_audio_of_the_steps_and_not_the_validation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    heard = Heard()
    tracker = Tracker([heard], every=2, done=4, total=9, audio_seconds=6.0)  # type: ignore[list-item]
    for step in (5, 6, 7, 8, 9):
        now += 0.5
        tracker.step(step, {"loss": 1.0})
        if step == 8:
            now += 60
            tracker.validated(step, REPORT)
    assert [(step, logs["rate"]) for step, logs in heard.steps] == [(6, 12.0), (8, 12.0), (9, 12.0)]


def test_the_board_holds_curves_and_audio_and_drops_what_lies_beyond(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit = LatentFit(3)
    fit.update(torch.ones(2, 3, 5), torch.zeros(2, 3, 5))
    report = REPORT._replace(statistics=fit.statistics())
    for done, last in ((0, 3), (2, 4)):  # the second run goes on from step 2
        board = Board(tmp_path, 8_000, done)
        for step in range(done + 1, last + 1):
            board.step(step, {"loss": 10.0 * done + step})
        board.skipped(last, "non-finite loss", ["a.wav@0.5"])
        board.validated(last, report)
        board.note("words")
        board.flush()
        board.close()
    read = EventAccumulator(str(tmp_path))
    read.Reload()
    assert read.Histograms("validation/kl_per_dimension")[-1].histogram_value.num == 3
    curve = [(event.step, event.value) for event in read.Scalars("train/loss")]
    assert curve == [(1, 1.0), (2, 2.0), (3, 23.0), (4, 24.0)]
    assert {"clip_0/original", "clip_0/reconstruction"} == set(read.Tags()["audio"])
    assert read.Audio("clip_0/original")[-1].sample_rate == 8_000


@pytest.fixture
def no_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is not installed."""
    real = builtins.__import__

    def absent(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("torch.utils.tensorboard"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", absent)


@pytest.mark.usefixtures("no_tensorboard")
def test_without_tensorboard_the_error_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(MissingPackageError, match=r"pip install 'audiovae\[train\]'"):
        Board(tmp_path, 8_000, 0)


@pytest.mark.usefixtures("no_tensorboard")
def test_a_run_goes_on_without_tensorboard_unless_it_was_asked_for(
    tmp_path: Path, tiny: Callable[..., TrainConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(tiny(steps=2, tensorboard=None), tmp_path / "run")
    assert "pip install 'audiovae[train]'" in capsys.readouterr().err
    assert (folder / "log.jsonl").exists()
    assert not (folder / "tensorboard").exists()
    with pytest.raises(MissingPackageError, match="TensorBoard files"):
        run(tiny(steps=2, tensorboard=True), tmp_path / "other")


def shown(terminal: bool) -> str:
    """What a display prints for two steps, a skipped one and two validations."""
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=200, soft_wrap=True)
    display = Display(100, 0, console)
    display.step(50, {"loss": 2.5, "mel": 1.25, "kl": 40.0, "beta": 0.5, "rate": 12.34})
    display.skipped(51, "non-finite loss", ["a.wav@0.5", "b.wav@1.0"])
    display.validated(60, REPORT)
    display.validated(70, REPORT)
    display.step(
        100, {"loss": 2.0, "mel": 1.0, "weighted.mel": 9.0, "gradient_norm": 3.0, "rate": 1.0}
    )
    display.flush()
    display.close()
    return text.getvalue()


def test_without_a_terminal_the_display_prints_plain_lines() -> None:
    lines = shown(terminal=False).splitlines()
    assert "\x1b" not in "".join(lines)
    assert lines[0].startswith("step 50/100  loss 2.5  mel 1.25  kl 40  beta 0.5  12.3 s/s  ")
    assert lines[1] == "step 51: update skipped, non-finite loss with a.wav@0.5, b.wav@1.0"
    assert lines[2] == "step 60/100  validation  mel 1.5  active_units 7"
    assert lines[3] == REPORT.alarms[0]
    assert lines[4] == "step 70/100  validation  mel 1.5  active_units 7"  # the alarm once
    assert lines[5] == "step 100/100  loss 2  mel 1  1.0 s/s  active 7  0:00 left"


def test_in_a_terminal_the_display_draws_one_live_line() -> None:
    text = shown(terminal=True)
    assert "\x1b" in text and "100/100" in text
    assert "1.0 s/s  active 7  0:00 left" in text and "gradient_norm" not in text


def test_plain_lines_come_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    text = io.StringIO()
    display = Display(1_000, 0, Console(file=text, width=200))
    for step in range(1, 101):
        now += 0.25
        display.step(step, {"loss": 1.0})
    printed = [line.split()[1] for line in text.getvalue().splitlines()]
    assert printed == ["1/1000", "41/1000", "81/1000"]  # every ten seconds
    assert text.getvalue().rstrip().endswith("3:50 left")  # 919 steps of a quarter of a second
