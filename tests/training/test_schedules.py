"""Schedules: their ends, their middles, and that they never go back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from audiovae.config import parse
from audiovae.errors import ConfigError
from audiovae.training.schedules import Progress, Schedule, Shape, ramp, value_at, warmup_cosine

RISING: list[Shape] = ["linear", "cosine", "sigmoid"]


def at(step: int, total: int = 100) -> Progress:
    return Progress(step, total, seed=0)


def test_constant_is_any_value_from_the_first_step() -> None:
    assert [value_at(Schedule(high=4.5), at(step)) for step in (0, 50, 99)] == [4.5] * 3


@pytest.mark.parametrize("shape", [*RISING, "cyclical"])
def test_a_ramp_is_low_until_start_and_high_from_stop(shape: Shape) -> None:
    values = [
        ramp(step, start=10, stop=30, low=0.5, high=3.0, shape=shape) for step in (0, 10, 30, 99)
    ]
    assert values == pytest.approx([0.5, 0.5, 3.0, 3.0], abs=1e-12)


@pytest.mark.parametrize("shape", RISING)
@given(step=st.floats(0, 39), further=st.floats(0, 20))
def test_a_ramp_never_goes_back_and_is_odd_about_its_middle(
    shape: Shape, step: float, further: float
) -> None:
    def value(s: float) -> float:
        return ramp(s, start=10, stop=30, shape=shape)

    assert value(step) <= value(step + further) + 1e-12
    assert value(step) + value(40 - step) == pytest.approx(1, abs=1e-9)


def test_ramp_shapes_at_a_quarter() -> None:
    quarter = {s: ramp(5, start=0, stop=20, shape=s) for s in RISING}
    assert quarter["linear"] == 0.25
    assert quarter["cosine"] == pytest.approx(0.1464466)
    assert quarter["sigmoid"] == pytest.approx(0.0474258731776 - 0.0024726231566, rel=0.01)


def test_cyclical_rises_in_half_of_each_cycle_and_starts_again() -> None:
    values = [
        ramp(s, start=0, stop=40, shape="cyclical", cycles=2) for s in (0, 5, 10, 19, 20, 25, 39)
    ]
    assert values == pytest.approx([0, 0.5, 1, 1, 0, 0.5, 1])


def test_a_share_of_the_run_and_steps_say_the_same() -> None:
    share = Schedule(kind="cosine", start=0.1, stop=0.6)
    steps = Schedule(kind="cosine", start=20, stop=120, unit="steps")
    for step in range(0, 200, 7):
        assert value_at(share, at(step, 200)) == pytest.approx(value_at(steps, at(step, 200)))


def test_beta_may_fall() -> None:
    falling = Schedule(kind="linear", low=4, high=1, start=0, stop=1)
    assert value_at(falling, at(50)) == 2.5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"start": 0.6}, "start must lie before stop, got 0.6 and 0.5"),
        ({"stop": 2_000}, 'share of the run up to 1, got 2000; for steps set unit to "steps"'),
        ({"high": -1}, "high: input should be greater than or equal to 0, got -1"),
        ({"shape": "linear"}, "shape is not a setting"),
    ],
)
def test_an_impossible_schedule_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(Schedule, wrong)


def test_the_learning_rate_rises_then_falls_to_its_floor() -> None:
    values = [warmup_cosine(at(step), 0.1, 0.02) for step in range(100)]
    assert values[0] == pytest.approx(1 / 11)
    assert max(values) == values[10] == 1
    assert values[-1] == pytest.approx(0.02)
    assert values[:11] == sorted(values[:11])
    assert values[10:] == sorted(values[10:], reverse=True)


@pytest.mark.parametrize("total", [1, 2, 3])
def test_the_shortest_runs_have_a_learning_rate(total: int) -> None:
    assert all(0 < warmup_cosine(at(step, total), 0.5, 0.02) <= 1 for step in range(total))


def test_a_log_ramp_multiplies_by_the_same_in_every_step() -> None:
    schedule = Schedule(kind="log", low=1e-6, high=5e-2, stop=20_000, unit="steps")
    values = [
        value_at(schedule, Progress(step, 10**6, 0)) for step in (0, 5_000, 10_000, 20_000, 30_000)
    ]
    middle = (1e-6 * 5e-2) ** 0.5
    assert values == pytest.approx([1e-6, (1e-6 * middle) ** 0.5, middle, 5e-2, 5e-2])
    with pytest.raises(ValidationError, match="must start above 0, got low 0"):
        Schedule(kind="log")
