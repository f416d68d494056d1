"""Line and bar charts as inline SVG: they take the page's colours and need no script, font or package.

Every element has a class (`line`, `raw`, `bar`, `marked`, `grid`, `limit`) that the page's style sheet colours.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 360, 190
WIDE = 1_040  # of a chart as wide as the page
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 8, 24  # margins of the plotted field


class Curve(NamedTuple):
    """A quantity over the steps of a training."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]
    meaning: str = ""  # one sentence


class _Scale(NamedTuple):
    """From values to pixels, linear or logarithmic."""

    low: float
    high: float
    start: float  # pixel of `low`
    stop: float  # pixel of `high`
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.logarithmic:
            value, low, high = math.log(max(value, low)), math.log(low), math.log(high)
        return self.start + (self.stop - self.start) * (value - low) / (high - low)


def line_chart(curve: Curve) -> str:
    """A curve as an SVG: the values as they are, faint, and their running mean; "" without two finite values."""
    points = [(x, y) for x, y in zip(curve.steps, curve.values, strict=True) if math.isfinite(y)]
    if len(points) < 2:
        return ""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    mean = running_mean(ys, window=max(1, len(ys) // 40))
    y_ticks = ticks(*_visible_range(ys))
    x = _Scale(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    y = _Scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    body = [
        *_y_grid(y_ticks, y),
        *(
            _x_label(v, x)
            for v in ticks(min(xs), max(xs))
            if min(xs) <= v <= max(xs) and v % 1 == 0
        ),
        _polyline("raw", [(x(a), min(max(y(b), TOP), HEIGHT - BOTTOM)) for a, b in points]),
        _polyline("line", [(x(a), y(b)) for a, b in zip(xs, mean, strict=True)]),
    ]
    return _svg(f"{curve.name} over the training steps", body)


def bar_chart(
    values: Sequence[float],
    marked: Sequence[bool],
    *,
    title: str,
    limit: float | None = None,
    logarithmic: bool = False,
    width: int = WIDE,
) -> str:
    """A bar for every value, those `marked` in the page's colour; `limit` is drawn across.

    On a logarithmic scale the bars stand on a thousandth of the highest, or a tenth of the limit if that is lower.
    """
    high = max([*values, limit or 0.0, 1e-12])
    low = min(high / 1000, limit / 10 if limit else high) if logarithmic else 0.0
    y_ticks = decades(low, high) if logarithmic else ticks(0.0, high)
    y = _Scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP, logarithmic)
    each = (width - LEFT - RIGHT) / max(len(values), 1)
    body = _y_grid(y_ticks, y, width)
    for i, (value, mark) in enumerate(zip(values, marked, strict=True)):
        top = y(value)
        body.append(
            f'<rect class="bar{" marked" if mark else ""}" x="{LEFT + i * each:.1f}" y="{top:.1f}" '
            f'width="{max(0.8 * each, 0.5):.1f}" height="{max(HEIGHT - BOTTOM - top, 0):.1f}">'
            f"<title>{i + 1}: {value:.3g}</title></rect>"
        )
    if limit is not None:
        body.append(_line("limit", LEFT, y(limit), width - RIGHT, y(limit)))
    last = LEFT + (len(values) - 0.6) * each
    body += [_text(LEFT + 0.4 * each, HEIGHT - 7, "1"), _text(last, HEIGHT - 7, str(len(values)))]
    return _svg(title, body, width)


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`, about so many steps apart.

    >>> ticks(0.0, 9.2)
    [0.0, 2.5, 5.0, 7.5, 10.0]
    """
    span = max(high - low, 1e-6 * max(abs(low), abs(high)), 1e-12)  # equal values want ticks too
    power = 10.0 ** math.floor(math.log10(span / about))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power * about >= span * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, max(last, first + 1) + 1)]


def decades(low: float, high: float) -> list[float]:
    """Powers of ten from at or below `low` to at or above `high`.

    >>> decades(0.02, 3.0)
    [0.01, 0.1, 1.0, 10.0]
    """
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    return [10.0**i for i in range(first, max(last, first + 1) + 1)]


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """The mean of the values up to `window` places to each side; fewer at the ends.

    >>> running_mean([0.0, 3.0, 6.0], 1)
    [1.5, 3.0, 4.5]
    """
    means = []
    for i in range(len(values)):
        near = values[max(0, i - window) : i + window + 1]
        means.append(sum(near) / len(near))
    return means


def _visible_range(values: Sequence[float]) -> tuple[float, float]:
    """From the lowest to the highest value, without the first steps where a loss is off the scale."""
    ordered = sorted(values)
    return ordered[0], ordered[min(len(ordered) - 1, round(0.98 * len(ordered)))]


def _y_grid(values: Sequence[float], y: _Scale, width: int = WIDTH) -> list[str]:
    parts = []
    for value in values:
        parts.append(_line("grid", LEFT, y(value), width - RIGHT, y(value)))
        parts.append(_text(LEFT - 5, y(value) + 4, f"{value:.4g}", "end"))
    return parts


def _x_label(value: float, x: _Scale) -> str:
    return _text(x(value), HEIGHT - 7, f"{value:,.0f}")


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _polyline(kind: str, points: Sequence[tuple[float, float]]) -> str:
    return f'<polyline class="{kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'


def _svg(title: str, body: Sequence[str], width: int = WIDTH) -> str:
    return (
        f'<svg viewBox="0 0 {width} {HEIGHT}" role="img"><title>{html.escape(title)}</title>'
        f"{''.join(body)}</svg>"
    )
