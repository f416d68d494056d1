"""Recipes: each trains, and what it trains is what was published."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import librosa
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import audiovae
from audiovae.api.training import train
from audiovae.audio import io
from audiovae.errors import ConfigError
from audiovae.losses.published import audiocraft_mel, rave_distance
from audiovae.recipes import RECIPES, recipe
from audiovae.training.adversarial import AdversarialConfig
from audiovae.training.autoencoder import AutoencoderTask
from audiovae.training.config import RunRecord, TrainConfig
from audiovae.training.schedules import Progress


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
        settings["adversarial"] = {"start": 0}
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


class Caught(NamedTuple):
    """The generator's first step of a training: what was found, and what the formula says."""

    loss: float
    total: float
    found: list[Tensor | None]  # the gradient of each weight
    known: list[Tensor | None]

    def agrees(self) -> None:
        assert self.loss == pytest.approx(self.total, rel=1e-4)
        assert [g is None or not g.any() for g in self.found] == [
            g is None or not g.any() for g in self.known
        ]
        found, known = (
            torch.cat([g.flatten() for g in side if g is not None and g.any()])
            for side in (self.found, self.known)
        )
        assert float((found - known).norm() / known.norm()) < 1e-3


Formula = Callable[[AutoencoderTask, Any, Tensor], tuple[Tensor, Sequence[Tensor | None]]]


def first_step(formula: Formula, **training: Any) -> Caught:
    """Train, and compute the formula of (task, out, x) beside the first step that the generator makes."""
    caught: list[Caught] = []
    accumulate = AutoencoderTask._accumulate_gradients

    def catching(self: AutoencoderTask, parts: Any, at: Progress) -> Any:
        if caught:
            return accumulate(self, parts, at)
        part = parts[0]
        eps = self._chance(part.items, at)
        out = self.forward.model(part.batch.x, sample=True, generators=eps)
        total, known = formula(self, out, part.batch.x)
        self.model.discard()
        result = accumulate(self, parts, at)
        grads = [None if p.grad is None else p.grad.clone() for p in self.model.parameters()]
        loss = result[0]["loss"]
        caught.append(Caught(loss, float(total.detach()), grads, list(known)))
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AutoencoderTask, "_accumulate_gradients", catching)
        train(**training)
    return caught[0]


def gradients(total: Tensor, task: AutoencoderTask) -> Sequence[Tensor | None]:
    return torch.autograd.grad(total, list(task.model.parameters()), allow_unused=True)


def test_dacs_first_step_is_its_formula(tmp_path: Path, small: dict[str, Any]) -> None:
    """15 mel + 2 features + adversarial + 0.25 commitment + codebook, the mel written with librosa's filters."""

    def formula(task: AutoencoderTask, out: Any, x: Tensor) -> Any:
        total = dac_total(task, out, x)
        return total, gradients(total, task)

    first_step(formula, recipe="dac_44k", out=tmp_path / "run", steps=1, **small).agrees()


def test_stable_audios_first_step_is_its_formula(
    tmp_path: Path,
    small: dict[str, Any],
    stable_audios_spectral_loss: Callable[[Tensor, Tensor, int], Tensor],
) -> None:
    """auraloss, arguments as stable-audio-tools gives them, + 0.1 adversarial + 5 features + 1e-4 of its own KL."""

    def formula(task: AutoencoderTask, out: Any, x: Tensor) -> Any:
        spectral = stable_audios_spectral_loss(out.x_hat, x, 44_100)
        fake, real = task.adversary.net(out.x_hat), task.adversary.net(x)
        adversarial = torch.stack([-f.logits.mean() for f in fake]).mean()
        features = torch.stack(
            [
                torch.stack(
                    [
                        (a - b.detach()).abs().mean()
                        for a, b in zip(f.features, r.features, strict=True)
                    ]
                ).mean()
                for f, r in zip(fake, real, strict=True)
            ]
        ).mean()
        mu, logvar = out.moments
        own_kl = (mu**2 + logvar.exp() - logvar - 1).sum(1).mean()
        # ours is a rate: the published frames, 21.533 a second, make the two weights one
        kl = 1e-4 * own_kl * (44_100 / task.model.hop_length) / (44_100 / 2048)
        total = spectral + 0.1 * adversarial + 5 * features + kl
        return total, gradients(total, task)

    caught = first_step(formula, recipe="stable_audio", out=tmp_path / "run", steps=2, **small)
    caught.agrees()


def test_encodecs_first_step_is_its_formula(tmp_path: Path, small: dict[str, Any]) -> None:
    """Shares 0.1, 2, 4 and 4 of unit gradients at x_hat, 8 items' worth, and the mean commitment outside of them."""

    def formula(task: AutoencoderTask, out: Any, x: Tensor) -> Any:
        x_hat = out.x_hat
        fake, real = task.adversary.net(x_hat), task.adversary.net(x)
        terms = {
            "l1": (0.1, (x_hat - x).abs().mean()),
            "mel": (2.0, audiocraft_mel(x_hat, x, 24_000)),
            "hinge": (4.0, torch.stack([-f.logits.mean() for f in fake]).mean()),
            "features": (4.0, torch.stack([
                torch.stack([(a - b.detach()).abs().mean() for a, b in zip(f.features, r.features, strict=True)]).mean()
                for f, r in zip(fake, real, strict=True)
            ]).mean()),
        }  # fmt: skip
        balanced = torch.zeros_like(x_hat)
        for weight, term in terms.values():
            (g,) = torch.autograd.grad(term, x_hat, retain_graph=True)
            balanced += 8 / len(x) * weight / 10.1 * g / g.flatten(1).norm(dim=1).mean()
        commitment = out.terms["commitment"]
        known = torch.autograd.grad(
            [x_hat, commitment], list(task.model.parameters()), [balanced, None], allow_unused=True
        )
        return sum(weight * term for weight, term in terms.values()) + commitment, known

    first_step(formula, recipe="encodec_24k", out=tmp_path / "run", steps=1, **small).agrees()


@pytest.mark.parametrize("phase", [1, 2])
def test_raves_first_steps_are_their_formulas(
    tmp_path: Path, small: dict[str, Any], phase: int
) -> None:
    """Spectral distances of sound and bands; then also 20 * 20 relative features and -D(x_hat), the encoder frozen."""

    def formula(task: AutoencoderTask, out: Any, x: Tensor) -> Any:
        model, x_hat = task.model, out.x_hat
        bands_hat, bands = (
            model.bands(out.z),
            model.pqmf(functional.pad(x, (0, -x.shape[-1] % model.hop_length))),
        )
        total = rave_distance(x_hat, x) + rave_distance(bands_hat, bands)
        mu, logvar = out.moments
        kl = (mu**2 + logvar.exp() - logvar - 1).sum(1).mean() / 2 * model.frame_rate
        total = total + 4.644e-3 * 2e-5 * kl
        if phase == 2:
            fake, real = task.adversary.net(x_hat), task.adversary.net(x)
            relative = [
                sum((a - b.detach()).abs().mean() / b.detach().abs().mean()
                    for a, b in zip(f.features[1:], r.features[1:], strict=True)) / len(f.features[1:])
                for f, r in zip(fake, real, strict=True)
            ]  # fmt: skip
            total = total + 20 * 20 * sum(relative) / 8 - sum(f.logits.mean() for f in fake)
        known = gradients(total, task)
        frozen = set(map(id, [*model.encoder.parameters(), *model.bottleneck.parameters()]))
        if phase == 2:
            known = [
                None if id(p) in frozen else g
                for p, g in zip(model.parameters(), known, strict=True)
            ]
        return total, known

    more = {"adversarial": {"start": 0 if phase == 2 else 100}}
    first_step(formula, recipe="rave_v2", out=tmp_path / "run", steps=2, **small, **more).agrees()


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
