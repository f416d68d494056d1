"""Schedules: pure functions of where a run stands.  Nothing here remembers anything.

    linear    t                        cosine   (1 - cos(pi t)) / 2
    sigmoid   logistic of 12 (t - 1/2), stretched to reach 0 and 1     (Bowman 2016)
    cyclical  t runs from 0 to 1 in the first half of each cycle, then stays 1   (Fu 2019)
    log       log(value) goes in a line from log(low) to log(high)               (RAVE's beta)

with t = (step - start) / (stop - start) held in [0, 1].
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, Self

from pydantic import Field, model_validator

from audiovae.config import Config

Shape = Literal["constant", "linear", "cosine", "sigmoid", "cyclical", "log"]

_STEEPNESS = 12.0  # of the sigmoid: nine tenths of the way happens in the middle half


class Progress(NamedTuple):
    """Where a run stands: everything that a step may depend on besides its batch."""

    step: int  # from 0
    total_steps: int
    seed: int


class Schedule(Config):
    """A factor on a weight over a run: `low` until `start`, a ramp, `high` from `stop` on."""

    kind: Shape = "constant"  # constant stays at `high`
    low: float = Field(0.0, ge=0)
    high: float = Field(1.0, ge=0)
    start: float = Field(0.0, ge=0)  # in steps, or as a share of the run
    stop: float = Field(0.5, gt=0)
    unit: Literal["share", "steps"] = "share"
    cycles: int = Field(4, ge=1)  # ramps between start and stop, of the cyclical kind only

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.stop <= self.start:
            raise ValueError(f"start must lie before stop, got {self.start:g} and {self.stop:g}")
        if self.kind == "log" and not self.low > 0:
            raise ValueError(f"a log schedule must start above 0, got low {self.low:g}")
        if self.unit == "share" and self.stop > 1:
            raise ValueError(
                f'stop is a share of the run up to 1, got {self.stop:g}; for steps set unit to "steps"'
            )
        return self


def value_at(schedule: Schedule, at: Progress) -> float:
    """The value of beta at a step."""
    if schedule.kind == "constant":
        return schedule.high
    scale = at.total_steps if schedule.unit == "share" else 1
    return ramp(
        at.step,
        start=schedule.start * scale,
        stop=schedule.stop * scale,
        low=schedule.low,
        high=schedule.high,
        shape=schedule.kind,
        cycles=schedule.cycles,
    )


def ramp(
    step: float,
    *,
    start: float,
    stop: float,
    low: float = 0.0,
    high: float = 1.0,
    shape: Shape = "linear",
    cycles: int = 4,
) -> float:
    """Go from low (until start) to high (from stop on) in one of the shapes above.

    >>> [ramp(step, start=10, stop=20, high=2.0) for step in (0, 15, 30)]
    [0.0, 1.0, 2.0]
    """
    share = min(1.0, max(0.0, (step - start) / (stop - start)))
    if shape == "log":
        return float(low ** (1 - share) * high**share)
    return low + (high - low) * _rise(share, shape, cycles)


def warmup_cosine(at: Progress, warmup: float, final: float) -> float:
    """The factor on the learning rate: a linear rise over the share `warmup`, then half a cosine down to `final`.

    It is above 0 at step 0, so that the first step already teaches something, and reaches `final` at the last one.
    """
    rising = math.floor(warmup * at.total_steps)
    if at.step < rising:
        return (at.step + 1) / (rising + 1)
    share = min(1.0, (at.step - rising) / max(1, at.total_steps - 1 - rising))
    return 1 - (1 - final) * _rise(share, "cosine", 1)


def _rise(share: float, shape: Shape, cycles: int) -> float:
    """0 at share 0, 1 at share 1."""
    match shape:
        case "constant":
            return 1.0
        case "linear" | "log":
            return share
        case "cosine":
            return (1 - math.cos(math.pi * share)) / 2
        case "sigmoid":
            low, here = _logistic(-_STEEPNESS / 2), _logistic(_STEEPNESS * (share - 0.5))
            return (here - low) / (1 - 2 * low)
        case "cyclical":
            return 1.0 if share == 1 else min(1.0, 2 * (share * cycles % 1))


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))
