"""How many steps fit into some minutes: found by taking a few, timing them, and taking them back.

The state is put back afterwards, so a run of `minutes` is exactly the run of the `steps` that it found.
"""

from __future__ import annotations

import copy
import time
from typing import NamedTuple

from audiovae.training.checkpoints import State
from audiovae.training.distributed import World
from audiovae.training.feed import Feed
from audiovae.training.loop import Task
from audiovae.training.schedules import Progress

WARM_UP_STEPS = 2  # the first steps pay for memory, kernels and file caches
TIMED_STEPS = 20  # at most, and at most a twentieth of the minutes
SPAN = 1_000  # steps of the run that the timed ones pretend to belong to
LATE, GOLDEN = 0.7, 0.618  # late steps may cost more than the first
VALIDATIONS = 20  # in a run
VALIDATION_SHARE = 0.1  # of the minutes, at most


class Pace(NamedTuple):
    """What a step and a validation cost on this machine, in seconds."""

    step: float
    validation: float
    measuring: float = 0.0  # what finding this out took

    def plan(self, seconds: float) -> tuple[int, int]:
        """The number of steps that fit, and after how many each a validation comes.

        >>> Pace(step=0.1, validation=1.0).plan(100.0)
        (900, 90)
        """
        seconds -= self.measuring
        validations = max(1, min(VALIDATIONS, int(VALIDATION_SHARE * seconds / self.validation)))
        steps = max(1, int((seconds - validations * self.validation) / self.step))
        return steps, -(-steps // validations)


def measure(task: Task, feed: Feed, seed: int, seconds: float, world: World) -> Pace:
    """Time steps and one validation of a fresh task; the task is as before afterwards."""
    before, product = _copied(task.state_dict()), copy.deepcopy(task.product.state_dict())
    started = time.perf_counter()
    for step in range(WARM_UP_STEPS + TIMED_STEPS):
        if step == WARM_UP_STEPS:
            timed_from = time.perf_counter()
        task.step(feed.parts(step), Progress(_spread(step, task.cycle), SPAN, seed))
        now = time.perf_counter()
        timed = step + 1 - WARM_UP_STEPS
        whole = timed > 0 and timed % task.cycle == 0
        if whole and world.any(now - started > seconds / 20):
            break
    step_seconds = (now - timed_from) / timed
    stepped = time.perf_counter()
    if world.first:
        task.validate(Progress(0, 1_000, seed))
    now = time.perf_counter()
    pace = Pace(step_seconds, now - stepped, now - started)
    task.load_state_dict(before)
    task.product.load_state_dict(product)
    return world.from_first(lambda: pace)


def _spread(step: int, cycle: int) -> int:
    """Where in a run of SPAN steps a timed one stands: whole cycles, spread over the run, a late one first."""
    number, within = divmod(step - WARM_UP_STEPS, cycle)
    place = int(SPAN * ((LATE + number * GOLDEN) % 1))
    return min(place // cycle * cycle + within, SPAN - 1)


def _copied(state: State) -> State:
    tensors = {name: tensor.clone() for name, tensor in state.tensors.items()}
    return State(tensors, copy.deepcopy(state.values))
