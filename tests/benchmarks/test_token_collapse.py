"""Posterior collapse: a token VAE with an autoregressive decoder does without its latent, and each remedy prevents it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from audiovae.data.token_source import best_bound


@pytest.fixture
def collapse(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark's script, whose settings these tests share."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import token_collapse

    return token_collapse


def check(collapse: ModuleType, folder: Path, remedies: list[str], seed: int, steps: int) -> None:
    """The collapsed run, and each remedy's against it: nats a sequence of held-out data."""
    scores = {
        name: collapse.train_and_score(collapse.config_of(name, steps, seed), folder / name)
        for name in [collapse.NO_HELP, *remedies]
    }
    bounds = best_bound(collapse.DATA.noise, collapse.LENGTH)
    collapsed = scores[collapse.NO_HELP]
    assert collapsed["kl"] < 0.1
    assert collapsed["negative_elbo"] == pytest.approx(bounds.without_z, abs=0.5)
    for name in remedies:
        assert scores[name]["kl"] > 1.5, (name, scores[name])
        gain = collapsed["negative_elbo"] - scores[name]["negative_elbo"]
        assert gain > MARGIN, (name, gain)
        assert scores[name]["negative_elbo"] > bounds.with_z


MARGIN = 0.5  # nats a sequence, on the same 512 sequences


def test_a_held_rate_rescues_a_latent_that_else_collapses(
    collapse: ModuleType, tmp_path: Path
) -> None:
    check(collapse, tmp_path, ["target rate"], seed=0, steps=200)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_remedy_rescues_it_for_every_seed(
    collapse: ModuleType, tmp_path: Path, seed: int
) -> None:
    remedies = [name for name in collapse.REMEDIES if name != collapse.NO_HELP]
    check(collapse, tmp_path, remedies, seed=seed, steps=600)
