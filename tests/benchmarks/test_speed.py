"""The speed benchmarks: their arithmetic, what they write, and that a stopped run goes on."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

ROUNDS = [
    {"a fp32": 100.0, "a bf16": 300.0, "b fp32": 2.0, "b bf16": 1.0},
    {"a fp32": 110.0, "a bf16": 330.0, "b fp32": 2.0, "b bf16": 1.5},
    {"a fp32": 120.0, "a bf16": 240.0, "b fp32": 4.0, "b bf16": 2.0},
]


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the scripts importable, as they are for each other."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")


@pytest.fixture
def timing(benchmarks: None) -> ModuleType:
    import _timing

    return _timing


def test_ratios_are_medians_of_paired_rounds_best_against_best(timing: ModuleType) -> None:
    assert timing.best(ROUNDS, "a") == "bf16"
    assert timing.best(ROUNDS, "b") == "fp32"
    assert timing.ratios(ROUNDS, [("a", "b")]) == {
        "a/b": 150.0,
        "a/b fp32": 50.0,
        "a/b bf16": 220.0,
    }


def test_seconds_are_the_processor_s_and_add_up_to_what_was_asked(
    timing: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that ticks only while work runs: calls of 1, 3 and 2 s reach 5 s; their median is 2."""
    now, costs = [0.0], iter([1.0, 3.0, 2.0])
    monkeypatch.setattr(timing.time, "process_time", lambda: now[0])

    def work() -> None:
        now[0] += next(costs)

    assert timing.cpu_seconds(work, at_least=5.0) == 2.0
    assert next(costs, None) is None


def test_the_page_quotes_the_results_beside_it(timing: ModuleType, tmp_path: Path) -> None:
    results = timing.open_results(tmp_path / "speed.json")
    results.row({"net": "a"}, lambda: {"speed": 1.5})
    page = timing.write_page(results, "Speed", "How.", [{"net": "a", "speed": 1.5}], {"a/b": 123.0})
    assert (tmp_path / "speed.md").read_text() == page
    assert "| a   |  1.50 |" in page and "| a/b   |   123 |" in page and "How." in page
    stored = json.loads((tmp_path / "speed.json").read_text())
    assert stored["ratios"] == {"a/b": 123.0}
    (row,) = stored["rows"]
    assert f"{row['date']}, 1 thread of: {row['machine']}." in page


@pytest.mark.slow
@pytest.mark.parametrize("script", ["train_step", "code_speed"])
def test_a_benchmark_runs_and_goes_on_where_it_stopped(
    benchmarks: None, script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import code_speed
    import train_step

    out = tmp_path / f"{script}.json"
    for module in (train_step, code_speed):
        monkeypatch.setattr(module, "AT_LEAST", 0.0)
        monkeypatch.setattr(module, "one_thread", lambda: None)  # would outlive this test

    def run(rounds: int) -> list[dict[str, object]]:
        if script == "train_step":
            train_step.measure(out, rounds, train_step.Grid((4096,), (1,)), narrow=True)
        else:
            code_speed.measure(out, rounds, seconds=0.2, narrow=True)
        rows: list[dict[str, object]] = json.loads(out.read_text())["rows"]
        return rows

    first = run(1)
    again = run(2)
    assert again[: len(first)] == first
    assert len(again) == len(first) + 1
    ratios = json.loads(out.read_text())["ratios"]
    pair = "spec_frame/dac" if script == "train_step" else "spec_frame_decode/oobleck_decode"
    assert ratios[pair] > 0
