"""The benchmark of sample-by-sample sound: its ways draw the same, and what it writes is what it measured."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

from audiovae.models import wave_kernel
from audiovae.models.wave_ar import WaveVAE, wave_vae

pytestmark = pytest.mark.skipif(
    wave_kernel.library() is None, reason="the kernel needs a C compiler"
)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import wave_sampling

    return wave_sampling


def test_every_way_draws_the_same_samples(script: ModuleType) -> None:
    """Beyond the receptive field, where the naive way begins to forget; bf16 rounds, so it is another net."""
    torch.manual_seed(0)
    model = WaveVAE(wave_vae(0)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    condition = model.condition(torch.randn(1, model.latent_dim, 3)).detach()
    uniforms = torch.rand(1, 30, 2, dtype=torch.float64)
    drawn = {
        name: voice.draw(condition, uniforms, 1.0) for name, voice in script.voices(model).items()
    }
    assert drawn["naive"].unique().numel() > 10
    for name in ("cached", "kernel"):
        torch.testing.assert_close(drawn[name], drawn["naive"], rtol=0, atol=1e-6)


def test_figures_are_medians_of_rounds_that_are_kept(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = iter(
        {"naive": 10.0, "cached": c, "kernel": 30_000.0, "kernel bf16": 60_000.0}
        for c in (1_000.0, 3_000.0, 1_500.0)
    )
    monkeypatch.setattr(script, "samples_per_second", lambda model: next(rounds))
    monkeypatch.setattr(script, "one_thread", lambda: None)  # would outlive this test
    out = tmp_path / "wave_sampling.json"
    script.measure(out, 1, wave_vae(0))
    page = script.measure(out, 3, wave_vae(0))
    stored = json.loads(out.read_text())
    assert len(stored["rows"]) == 3
    assert stored["samples_per_second"]["cached"] == 1_500
    assert stored["ratios"] == {
        "kernel/cached": 20.0,
        "kernel/naive": 3_000.0,
        "kernel bf16/cached": 40.0,
        "kernel bf16/naive": 6_000.0,
    }
    assert page == out.with_suffix(".md").read_text()
    assert "| kernel bf16 |" in page and "2.50" in page and "samples_per_second" in page


def test_a_round_measures_every_way(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "AT_LEAST", 0.0)
    monkeypatch.setattr(script, "SAMPLES", dict.fromkeys(script.SAMPLES, 8))
    speeds = script.samples_per_second(WaveVAE(wave_vae(0)).eval())
    assert set(speeds) == {"naive", "cached", "kernel", "kernel bf16"}
    assert all(speed > 0 for speed in speeds.values())


def test_without_a_compiler_there_is_nothing_to_measure(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wave_kernel, "library", lambda: None)
    with pytest.raises(RuntimeError, match="install gcc or clang"):
        script.voices(WaveVAE(wave_vae(0)))
