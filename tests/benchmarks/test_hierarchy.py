"""The benchmark of the hierarchy: what a row says of a model's first levels."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch

from audiovae.evaluation import score
from audiovae.models import build, resolve


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, importable as it is for the others."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import hierarchy

    return hierarchy


def test_a_row_scores_what_the_first_levels_say_at_their_own_rate(benchmark: ModuleType) -> None:
    torch.manual_seed(0)
    model = build(resolve("hierarchy", {"size": 0, "sample_rate": 8000, "channels": 1})).eval()
    clips = [0.1 * torch.randn(1, 1, 4096) for _ in range(2)]
    rows = [benchmark.level_scores(model, clips, levels) for levels in (1, 2, 3)]
    # 8000 / 512 frames a second of the top, 2 codes of 4 bits each; each level below has twice as many
    assert [row["bits_per_second"] for row in rows] == [125.0, 375.0, 875.0]
    for levels, row in enumerate(rows, start=1):
        with torch.no_grad():
            heard = [model.decode(model.encode(x).codes[:levels], 4096) for x in clips]
        both = [
            score(x, x_hat, 8000, ("mel",))["mel"] for x, x_hat in zip(clips, heard, strict=True)
        ]
        assert row["mel"] == pytest.approx(sum(both) / 2)


def test_the_training_is_of_the_family_it_measures(benchmark: ModuleType) -> None:
    config = benchmark.config_of(minutes=3.0, size=0)
    assert (config.minutes, config.model.kind, config.model.sample_rate) == (
        3.0,
        "hierarchy",
        24_000,
    )
    assert len(benchmark.ROWS) == len(config.model.rates)
