"""How a training looks while it runs: one live line in a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from audiovae.training.tracking import Report

SECONDS_BETWEEN_LINES = 10.0  # where there is no terminal to draw in


class Display:
    """Progress on the standard error: step, rate, terms, beta, active units, time left."""

    def __init__(self, total: int, from_step: int, console: Console) -> None:
        self.console = console
        self.total = total
        self._from = (from_step, time.monotonic())
        self._printed_at = 0.0
        self._active = ""
        self._alarms: set[str] = set()  # the names of those that stand, said once
        self._bar: Progress | None = None
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("training"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[figures]}"),
                console=self.console,
            )
            self._task = self._bar.add_task("", total=total, completed=from_step, figures="")
            self._bar.start()

    def step(self, step: int, logs: dict[str, float]) -> None:
        """Show the figures of a step."""
        figures = "  ".join([*_figures(logs), self._active, self._time_left(step)]).replace(
            "    ", "  "
        )
        if self._bar is not None:
            self._bar.update(self._task, completed=step, figures=figures)
        elif step == self.total or time.monotonic() - self._printed_at >= SECONDS_BETWEEN_LINES:
            self._printed_at = time.monotonic()
            self.note(f"step {step}/{self.total}  {figures}")

    def skipped(self, step: int, fault: str, sources: Sequence[str]) -> None:
        """Say that an update was not made."""
        self.note(f"step {step}: update skipped, {fault} with {', '.join(sources[:3])}")

    def validated(self, step: int, report: Report) -> None:
        """Show the figures of a validation and its alarms."""
        if "active_units" in report.figures:
            self._active = f"active {report.figures['active_units']:.0f}"
        if "perplexity" in report.figures:
            self._active = f"perplexity {report.figures['perplexity']:.0f}"
        shown = "  ".join(
            f"{name} {value:.4g}"
            for name, value in report.figures.items()
            if "." not in name  # of single codebooks: for the log
        )
        self.note(f"step {step}/{self.total}  validation  {shown}")
        for alarm in report.alarms:
            if alarm.partition(":")[0] not in self._alarms:
                self.note(alarm)
        self._alarms = {alarm.partition(":")[0] for alarm in report.alarms}

    def note(self, text: str) -> None:
        """Print a line (above the live one)."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def flush(self) -> None:
        """Nothing is kept back."""

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()

    def _time_left(self, step: int) -> str:
        first, then = self._from
        seconds = (time.monotonic() - then) / max(step - first, 1) * (self.total - step)
        minutes, seconds = divmod(round(seconds), 60)
        return f"{minutes}:{seconds:02d} left"


def _figures(logs: dict[str, float]) -> list[str]:
    """The loss, its terms, beta and the rate, short."""
    shown = [
        f"{name} {logs[name]:.4g}" for name in logs if name in ("loss", "beta") or "." not in name
    ]
    rate = f"{logs['rate']:.1f} s/s" if "rate" in logs else ""
    return [
        *(text for text in shown if not text.startswith(("rate ", "learning_rate ", "gradient"))),
        rate,
    ]
