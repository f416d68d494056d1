"""Charts put each value where its scale says, and skip what is no number."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiovae.evaluation.chart import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Curve,
    bar_chart,
    decades,
    line_chart,
    running_mean,
    ticks,
)


def points(svg: str, kind: str) -> list[tuple[float, float]]:
    found = re.search(rf'class="{kind}" points="([^"]*)"', svg)
    assert found
    pairs = (pair.split(",") for pair in found[1].split())
    return [(float(x), float(y)) for x, y in pairs]


def bars(svg: str) -> list[tuple[bool, float]]:
    """Whether each bar is marked, and its height."""
    return [
        ("marked" in rect.attrib["class"], float(rect.attrib["height"]))
        for rect in ElementTree.fromstring(svg).iter("rect")
    ]


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6).map(lambda span: round(span, 3)), st.integers(2, 10))
def test_ticks_are_round_evenly_spaced_and_hold_the_range(
    low: float, span: float, about: int
) -> None:
    high = low + span
    marks = ticks(low, high, about)
    step = marks[1] - marks[0]
    slack = 1e-6 * max(step, abs(low))
    assert marks[0] <= low + slack
    assert marks[-1] >= high - slack
    assert len(marks) <= about + 3
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(mantissa - m) for m in (1, 2, 2.5, 5, 10)) < 1e-4


@given(st.floats(1e-9, 1e6), st.floats(1, 1e9))
def test_decades_hold_the_range(low: float, ratio: float) -> None:
    marks = decades(low, low * ratio)
    assert marks[0] <= low * (1 + 1e-6)
    assert marks[-1] >= low * ratio * (1 - 1e-6)
    assert all(b / a == pytest.approx(10) for a, b in pairwise(marks))


def test_a_running_mean_of_nothing_around_is_the_value_itself() -> None:
    assert running_mean([3.0, 1.0, 2.0], 0) == [3.0, 1.0, 2.0]
    assert running_mean([5.0] * 9, 3) == [5.0] * 9


def test_a_straight_line_goes_from_corner_to_corner() -> None:
    svg = line_chart(Curve("loss", [0, 10, 20], [0.0, 5.0, 10.0]))
    first, middle, last = points(svg, "raw")
    assert first == (LEFT, HEIGHT - BOTTOM)
    assert last == (WIDTH - RIGHT, TOP)
    assert middle == pytest.approx(
        ((LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2), abs=0.1
    )


def test_a_first_value_off_the_scale_does_not_flatten_the_rest() -> None:
    values = [1e6, *(2.0 - i / 100 for i in range(100))]
    heights = [y for _, y in points(line_chart(Curve("loss", range(101), values)), "raw")]
    assert heights[0] == TOP
    assert max(heights[1:]) - min(heights[1:]) > (HEIGHT - TOP - BOTTOM) / 3


def test_values_that_are_no_numbers_are_left_out() -> None:
    assert len(points(line_chart(Curve("kl", [1, 2, 3], [1.0, math.nan, 2.0])), "line")) == 2
    assert line_chart(Curve("kl", [1, 2], [math.inf, 2.0])) == ""
    assert line_chart(Curve("kl", [], [])) == ""


def test_steps_are_labelled_with_whole_numbers_inside_the_range() -> None:
    svg = line_chart(Curve("loss", [10, 11, 12], [3.0, 2.0, 1.0]))
    labels = [
        e.text for e in ElementTree.fromstring(svg) if e.attrib.get("y") == f"{HEIGHT - 7:.1f}"
    ]
    assert labels == ["10", "11", "12"]


def test_equal_values_have_a_chart() -> None:
    heights = {y for _, y in points(line_chart(Curve("beta", [0, 1], [0.0, 0.0])), "line")}
    assert heights == {HEIGHT - BOTTOM}


def test_bars_are_as_high_as_their_values() -> None:
    shown = bars(bar_chart([8.0, 4.0, 2.0, 0.0], [True, True, False, False], title="KL"))
    assert [marked for marked, _ in shown] == [True, True, False, False]
    heights = [height for _, height in shown]
    assert heights[0] == pytest.approx(2 * heights[1], abs=0.2)
    assert heights[1] == pytest.approx(2 * heights[2], abs=0.2)
    assert heights[3] == 0


def test_on_a_logarithmic_scale_equal_ratios_are_equal_steps_and_the_limit_is_among_them() -> None:
    svg = bar_chart(
        [1.0, 0.1, 0.01, 0.0], [True] * 4, title="variance", limit=0.01, logarithmic=True
    )
    heights = [height for _, height in bars(svg)]
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.2)
    assert heights[3] == 0
    limit = next(e for e in ElementTree.fromstring(svg) if e.attrib.get("class") == "limit")
    assert HEIGHT - BOTTOM - float(limit.attrib["y1"]) == pytest.approx(heights[2], abs=0.2)


def test_titles_are_escaped() -> None:
    svg = line_chart(Curve("a<b & c", [0, 1], [0.0, 1.0]))
    assert ElementTree.fromstring(svg)[0].text == "a<b & c over the training steps"
