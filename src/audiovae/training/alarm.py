"""What stands an alarm: a symptom that lasts for some looks in a row, with its name, since when, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Alarm:
    """Remembers which symptoms last."""

    def __init__(self, patience: int = 2) -> None:
        self.patience = patience  # looks in a row before an alarm
        self._since: dict[str, int | None] = {}  # symptom: when it first showed, while it lasts
        self._looks: dict[str, int] = {}

    def look(
        self, step: int | None, symptoms: Mapping[str, str | None], advice: Mapping[str, str]
    ) -> list[str]:
        """Take a look after a step (None: at a finished model); `symptoms` say of each what shows it, or None.

        Returns the alarms that stand, each as "name: seen, since. What to do".
        """
        return [
            f"{name}: {what}{_since(self._since[name])}. {advice[name]}"
            for name, what in symptoms.items()
            if self._lasts(name, what is not None, step)
        ]

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as JSON can hold it."""
        return {"since": dict(self._since), "looks": dict(self._looks)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to what `state_dict` returned."""
        self._since, self._looks = dict(state["since"]), dict(state["looks"])

    def _lasts(self, name: str, seen: bool, step: int | None) -> bool:
        if not seen:
            self._since.pop(name, None)
            self._looks.pop(name, None)
            return False
        self._since.setdefault(name, step)
        self._looks[name] = self._looks.get(name, 0) + 1
        return self._looks[name] >= self.patience


def _since(step: int | None) -> str:
    return "" if step is None else f", since step {step}"
