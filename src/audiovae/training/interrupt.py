"""Ctrl-C and SIGTERM: the first asks to stop at the end of the step, the second stops at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """While entered, remembers a signal instead of dying from it.

    A process that stopped for a signal ends with the code 128 + its number, as shells have it: 130 after Ctrl-C, 143
    after SIGTERM.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.signal: int | None = None
        self._say = say
        self._before: dict[int, object] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has arrived."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """What the process ends with; SIGTERM's where the signal went to another process only."""
        return 128 + (self.signal or signal.SIGTERM)

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():  # Python allows it nowhere else
            self._before = {s: signal.signal(s, self._remember) for s in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            os._exit(128 + number)
        self.signal = number
        self._say("stopping at the end of this step with a checkpoint; once more stops at once")
