"""The search benchmark: all libraries find equally near codes, and a stopped run goes on."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import codebook_search

    monkeypatch.setattr(codebook_search, "one_thread", lambda: None)  # would outlive this test
    monkeypatch.setattr(codebook_search, "AT_LEAST", 0.0)
    return codebook_search


@torch.inference_mode()
def test_all_libraries_find_equally_near_codes(benchmark: ModuleType) -> None:
    torch.manual_seed(0)
    for case in (benchmark.single(100, 8, 300), benchmark.residual(3, 64, 8, 200)):
        assert all(share < 1e-6 for share in benchmark.further(case).values())
        assert {tuple(search().shape) for search in case.searches.values()} == {
            (len(case.x), len(case.codebooks))
        }


def test_a_run_that_was_stopped_goes_on_where_it_was(benchmark: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "codebook_search.json"

    def rows(rounds: int) -> list[dict[str, object]]:
        page = benchmark.measure(out, rounds, 16, narrow=True)
        assert "| 1024 x 128 " in page and "times encodec (goal 2)" in page
        found: list[dict[str, object]] = json.loads(out.read_text())["rows"]
        return found

    first = rows(1)
    again = rows(2)
    assert all(row in again for row in first) and len(again) == len(first) + 2
