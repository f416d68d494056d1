"""Results of benchmarks: a JSON file whose rows are computed once, and a table to read.

A row belongs to a config; its key is a hash of that config, so a benchmark that was stopped goes on with the rows that
are missing, and a changed config makes a new row beside the old one. Each row remembers when and where it was measured.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from audiovae.config import read_json
from audiovae.errors import ConfigError
from audiovae.paths import replacing

FORMAT = 1


def config_hash(config: Mapping[str, Any]) -> str:
    """Sixteen hex digits that tell configs apart; the order of the keys does not matter.

    >>> config_hash({"a": 1, "b": 2}) == config_hash({"b": 2, "a": 1})
    True
    """
    text = json.dumps(config, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class ResultsFile:
    """One benchmark's results: {"format", "rows": [{"key", "config", "values", "date", "machine"}], and what `put` adds}.

    Every change is written at once, whole or not at all. `machine` is what new rows are measured on.
    Raises ConfigError if there is a file that is not such a one.
    """

    def __init__(self, path: Path, machine: str = "") -> None:
        self.path, self.machine = path, machine
        self.measured: set[tuple[str, str]] = set()  # machine and date of the rows that were found
        self._content: dict[str, Any] = {"format": FORMAT, "rows": []}
        if path.exists():
            content = read_json(path)
            if content.get("format") != FORMAT or not isinstance(content.get("rows"), list):
                raise ConfigError(
                    f"{path} is not a results file of format {FORMAT}; move it away or name another file"
                )
            self._content = content

    @property
    def configs(self) -> list[dict[str, Any]]:
        """Of the rows so far."""
        return [dict(row["config"]) for row in self._content["rows"]]

    def find(self, config: Mapping[str, Any]) -> dict[str, Any] | None:
        """The row of this config, its config and its values in one dict; None if it is not there yet."""
        key = config_hash(config)
        for row in self._content["rows"]:
            if row["key"] == key:
                self.measured.add((row["machine"], row["date"]))
                return dict(row["config"] | row["values"])
        return None

    def row(
        self, config: Mapping[str, Any], compute: Callable[[], Mapping[str, Any]]
    ) -> dict[str, Any]:
        """The row of this config: from the file, else computed and written."""
        found = self.find(config)
        if found is not None:
            return found
        values, today = dict(compute()), datetime.datetime.now(datetime.UTC).date().isoformat()
        stamp = {"date": today, "machine": self.machine}
        self._content["rows"].append(
            {"key": config_hash(config), "config": dict(config), "values": values, **stamp}
        )
        self._write()
        self.measured.add((self.machine, today))
        return dict(config) | values

    def put(self, name: str, value: Any) -> None:
        """Set a field beside the rows, such as "ratios"."""
        if name in ("format", "rows"):
            raise ConfigError(f"'{name}' is the file's own field; choose another name")
        self._content[name] = value
        self._write()

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as temporary:
            temporary.write_text(json.dumps(self._content, indent=1) + "\n", encoding="utf-8")


def table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """Rows as a Markdown table, numbers right-aligned with three digits that count.

    >>> print(table([{"model": "a", "mel": 0.51234}, {"model": "bc", "mel": 12.0}]))
    | model |   mel |
    | :---- | ----: |
    | a     | 0.512 |
    | bc    |  12.0 |
    """
    rows = list(rows)
    columns = (
        list(dict.fromkeys(key for row in rows for key in row)) if columns is None else columns
    )
    cells = [[_cell(row.get(name)) for name in columns] for row in rows]
    right = [all(isinstance(row.get(name, 0), int | float) for row in rows) for name in columns]
    widths = [
        max([len(name), 3, *(len(line[i]) for line in cells)]) for i, name in enumerate(columns)
    ]

    def line(texts: Sequence[str]) -> str:
        padded = [
            text.rjust(width) if numeric else text.ljust(width)
            for text, width, numeric in zip(texts, widths, right, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    rules = [
        "-" * (width - 1) + ":" if numeric else ":" + "-" * (width - 1)
        for width, numeric in zip(widths, right, strict=True)
    ]
    return "\n".join([line(columns), line(rules), *(line(row) for row in cells)])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    if value != value or abs(value) in (0.0, float("inf")):
        return str(value)
    if abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:#.3g}".rstrip(".")
