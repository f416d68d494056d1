"""Recipes: each trains, and what it trains is what was published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import librosa
import pytest
import torch
from torch import Tensor

import audiovae
from audiovae.api.training import train
from audiovae.audio import io
from audiovae.errors import ConfigError
from audiovae.recipes import RECIPES, recipe
from audiovae.training.adversarial import AdversarialConfig
from audiovae.training.config import RunRecord, TrainConfig


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings that make a recipe small: the test model, half a second of noise, two crops a step."""
    folder = tmp_path_factory.mktemp("sounds")
    generator = torch.Generator().manual_seed(0)
    for number in range(3):
        x = 0.1 * torch.randn(2, 22_050, generator=generator)
        io.write(folder / f"{number}.wav", x, 44_100)
    return {
        "model": {"size": 0},
        "data": {
            "path": str(folder),
            "segment_seconds": 0.2,
            "valid_seconds": 0.2,
            "valid_crops": 2,
        },
        "batch_size": 2,
        "tensorboard": False,
        "quiet": True,
    }


@pytest.mark.parametrize("name", RECIPES)
def test_two_steps_of_a_recipe(name: str, tmp_path: Path, small: dict[str, Any]) -> None:
    """With the discriminators as wide as published; a schedule by steps is brought forward."""
    settings = dict(small)
    if name == "rave_v2":
        settings["adversarial"] = {"ramp": {"start": 0, "stop": 1}}
    run = train(recipe=name, out=tmp_path / "run", steps=2, log_every=1, **settings)
    record = RunRecord.read(run)
    assert record is not None and record.total_steps == 2
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "validation" not in line]
    assert not any("skipped" in line for line in steps)
    seen = set().union(*steps)
    assert {"adversarial", "features", "discriminator"} <= seen
    weighed = {k.removeprefix("weighted.") for k in seen if k.startswith("weighted.")}
    assert weighed >= {n for n in recipe(name)["objective"]["weights"] if n != "kl"}
    audiovae.info(run)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_whole_and_trains_the_published_net(name: str) -> None:
    table = recipe(name)
    table.pop("data")
    preset = table.pop("model")["preset"]
    config = TrainConfig(**table)
    assert isinstance(config.adversarial, AdversarialConfig)
    parameters = {
        "dac_44k": 76.7e6, "encodec_24k": 14.9e6, "rave_v2": 32e6, "stable_audio": 156e6,
    }  # fmt: skip
    assert audiovae.info(preset).parameters == pytest.approx(parameters[name], rel=0.05)


def test_dacs_first_step_is_its_formula(tmp_path: Path, small: dict[str, Any]) -> None:
    """15 mel + 2 features + adversarial + 0.25 commitment + codebook, the mel written with librosa's filters."""
    from audiovae.training.autoencoder import AutoencoderTask
    from audiovae.training.schedules import Progress

    caught: dict[str, Any] = {}
    accumulate = AutoencoderTask._accumulate_gradients

    def catching(self: AutoencoderTask, parts: Any, at: Progress) -> Any:
        if not caught:
            part = parts[0]
            eps = self._chance(part.items, at)
            out = self.model(part.batch.x, sample=True, generators=eps)
            caught["total"] = dac_total(self, out, part.batch.x)
            caught["gradient"] = torch.autograd.grad(
                caught["total"], list(self.model.parameters()), allow_unused=True
            )
            self.model.discard()
            result = accumulate(self, parts, at)
            caught["found"] = [p.grad.clone() for p in self.model.parameters()]
            caught["loss"] = result[0]["loss"]
            return result
        return accumulate(self, parts, at)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AutoencoderTask, "_accumulate_gradients", catching)
        train(recipe="dac_44k", out=tmp_path / "run", steps=1, **small)
    assert caught["loss"] == pytest.approx(float(caught["total"].detach()), rel=1e-4)
    found, known = (torch.cat([g.flatten() for g in caught[n]]) for n in ("found", "gradient"))
    assert float((found - known).norm() / known.norm()) < 1e-3


def dac_total(task: Any, out: Any, x: Tensor) -> Tensor:
    """The loss of DAC's paper and code, of x_hat and x [B, 1, T] at 44.1 kHz."""
    mel = torch.zeros(())
    for n_fft, n_mels in zip(
        (32, 64, 128, 256, 512, 1024, 2048), (5, 10, 20, 40, 80, 160, 320), strict=True
    ):
        filters = torch.from_numpy(librosa.filters.mel(sr=44_100, n_fft=n_fft, n_mels=n_mels))
        bands = [
            filters
            @ torch.stft(
                side[:, 0], n_fft, n_fft // 4, window=torch.hann_window(n_fft), return_complex=True
            ).abs()
            for side in (out.x_hat, x)
        ]
        a, b = (band.clamp(min=1e-5).log10() for band in bands)
        mel = mel + (a - b).abs().mean()
    fake, real = task.adversary.net(out.x_hat), task.adversary.net(x)
    adversarial = sum(((1 - f.logits) ** 2).mean() for f in fake)
    features = sum(
        (a - b.detach()).abs().mean()
        for f, r in zip(fake, real, strict=True)
        for a, b in zip(f.features, r.features, strict=True)
    )
    codes = 0.25 * out.terms["commitment"] + out.terms["codebook"]
    total: Tensor = 15 * mel + 2 * features + adversarial + codes
    return total


def test_minutes_take_the_place_of_a_recipes_steps_and_flags_win(
    tmp_path: Path, small: dict[str, Any]
) -> None:
    settings = small | {"objective": {"weights": {"features": 3.0}}}
    run = train(recipe="encodec_24k", out=tmp_path / "run", minutes=0.02, **settings)
    record = RunRecord.read(run)
    assert record is not None
    assert (record.config.minutes, record.config.steps) == (0.02, None)
    assert record.config.objective.weights == recipe("encodec_24k")["objective"]["weights"] | {
        "features": 3.0
    }
    assert record.config.model.kind == "encodec"
    assert record.config.data.kind == "folder"
    assert record.config.data.augment.gain == 0.0  # the recipe's, under the folder that was named


def test_a_recipe_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="no recipe 'dac_44'; did you mean 'dac_44k'"):
        train(recipe="dac_44")  # type: ignore[arg-type]
