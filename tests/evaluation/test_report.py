"""Results files: rows are computed once, a stopped benchmark goes on, tables line up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from audiovae.errors import ConfigError
from audiovae.evaluation.report import ResultsFile, config_hash, table


def test_a_row_is_computed_once_and_found_again(tmp_path: Path) -> None:
    path, calls = tmp_path / "deep" / "results.json", []

    def compute() -> dict[str, Any]:
        calls.append(1)
        return {"mel": 0.5}

    first = ResultsFile(path).row({"model": "a", "minutes": 20}, compute)
    again = ResultsFile(path).row({"minutes": 20, "model": "a"}, compute)
    assert first == again == {"model": "a", "minutes": 20, "mel": 0.5}
    assert len(calls) == 1
    ResultsFile(path).row({"model": "a", "minutes": 60}, compute)
    assert len(calls) == 2
    assert [config["minutes"] for config in ResultsFile(path).configs] == [20, 60]


def test_a_row_keeps_the_day_and_the_machine_it_was_measured_on(tmp_path: Path) -> None:
    """Else rows of another machine, or of last year, would pass for today's."""
    path = tmp_path / "results.json"
    ResultsFile(path, "old machine").row({"n": 1}, lambda: {"v": 1})
    content = json.loads(path.read_text())
    content["rows"][0]["date"] = "2001-01-01"
    path.write_text(json.dumps(content))
    later = ResultsFile(path, "new machine")
    later.row({"n": 2}, lambda: {"v": 2})
    assert {machine for machine, _ in later.measured} == {"new machine"}  # n = 1 is not shown
    later.row({"n": 1}, lambda: {"v": 1})
    assert ("old machine", "2001-01-01") in later.measured


def test_a_row_that_fails_leaves_the_rows_before_it(tmp_path: Path) -> None:
    results = ResultsFile(tmp_path / "results.json")
    results.row({"n": 1}, lambda: {"v": 1})

    def fail() -> dict[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        results.row({"n": 2}, fail)
    assert ResultsFile(results.path).configs == [{"n": 1}]
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_fields_stand_beside_the_rows(tmp_path: Path) -> None:
    results = ResultsFile(tmp_path / "results.json")
    results.row({"n": 1}, lambda: {"v": 1})
    results.put("ratios", {"spec_frame/oobleck": 120.0})
    content = json.loads(results.path.read_text())
    assert content["format"] == 1
    assert content["ratios"] == {"spec_frame/oobleck": 120.0}
    assert content["rows"][0]["key"] == config_hash({"n": 1})
    with pytest.raises(ConfigError, match="'rows' is the file's own field"):
        results.put("rows", [])


def test_a_file_of_another_kind_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text('{"format": 2}')
    with pytest.raises(ConfigError, match="not a results file of format 1; move it away"):
        ResultsFile(path)
    assert path.read_text() == '{"format": 2}'


def test_configs_that_differ_have_other_hashes() -> None:
    hashes = {config_hash(c) for c in ({"a": 1}, {"a": 2}, {"a": "1"}, {"b": 1}, {"a": {"b": 1}})}
    assert len(hashes) == 5


def test_a_table_lines_up() -> None:
    rows = [
        {"model": "spec_frame", "mel": 1.23456, "steps": 12, "visqol": None, "rate": 123_456.7},
        {"model": "oobleck", "mel": 0.0, "steps": 3, "visqol": 4.25, "rate": 1e-5},
    ]
    assert table(rows).splitlines() == [
        "| model      |  mel | steps | visqol |     rate |",
        "| :--------- | ---: | ----: | :----- | -------: |",
        "| spec_frame | 1.23 |    12 | -      |   123457 |",
        "| oobleck    |  0.0 |     3 | 4.25   | 1.00e-05 |",
    ]
    assert table(rows, ["steps"]).splitlines()[2:] == ["|    12 |", "|     3 |"]
