"""A VAE-GAN's step: both halves, whose turn it is, and that nothing of them is lost."""

from __future__ import annotations

import copy
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from audiovae.data import open_dataset
from audiovae.errors import ConfigError
from audiovae.losses.discriminators import PatchesConfig, ScaleConfig
from audiovae.models import build, resolve
from audiovae.training import TrainConfig, run
from audiovae.training.adversarial import AdversarialConfig
from audiovae.training.autoencoder import AutoencoderTask
from audiovae.training.feed import Feed, Part
from audiovae.training.schedules import Progress

Tiny = Callable[..., TrainConfig]
CPU = torch.device("cpu")
SMALL = PatchesConfig(n_ffts=(64,), patch=8, width=8, depth=1)
AT_ONCE = {"start": 0.0, "warmup": 0.0}


def gan(tiny: Tiny, *, steps: int = 24, accumulate: int = 1, **adversarial: Any) -> TrainConfig:
    """A tiny VAE-GAN that begins with its first step."""
    settings = AdversarialConfig(**{"discriminators": (SMALL,), **AT_ONCE} | adversarial)
    return tiny(
        objective={"name": "spectral", "windows_per_step": 0},
        adversarial=settings,
        steps=steps,
        accumulate=accumulate,
    )


def task_of(config: TrainConfig) -> AutoencoderTask:
    torch.manual_seed(0)
    model = config.model
    data = open_dataset(
        config.data,
        sample_rate=model.sample_rate,
        channels=model.channels,
        multiple_of=model.hop_length,
    )
    return AutoencoderTask(build(model), data, config, CPU)


def parts_of(task: AutoencoderTask, step: int) -> list[Part]:
    with Feed(task.data, 0, [range(4)], CPU) as feed:
        return feed.parts(step)


def weights(task: AutoencoderTask) -> dict[str, dict[str, Tensor]]:
    assert task.adversary is not None
    nets = {"model": task.model, "discriminators": task.adversary.net}
    return {name: copy.deepcopy(net.state_dict()) for name, net in nets.items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_a_step_is_the_formula_written_out(tiny: Tiny) -> None:
    """Loss and gradients of both halves, against the sums of DAC's paper for its game and reductions."""
    config = gan(tiny, loss="lsgan", reduction="sum", feature_reduction="sum").model_copy()
    config = config.model_copy(
        update={
            "objective": config.objective.model_copy(
                update={"weights": {"adversarial": 0.7, "features": 2.0}}
            )
        }
    )
    task, reference = task_of(config), task_of(config)
    part = parts_of(task, 0)[0]
    assert reference.adversary is not None
    net = reference.adversary.net

    eps = reference._chance(part.items, Progress(0, 24, 0))
    out = reference.model(part.batch.x, sample=True, generators=eps)
    plain = reference.objective(out, part.batch.x, Progress(0, 24, 0))
    real, fake = net(part.batch.x), net(out.x_hat)
    adversarial = sum(((f.logits - 1) ** 2).mean() for f in fake)
    features = sum(
        (a - b.detach()).abs().mean()
        for f, r in zip(fake, real, strict=True)
        for a, b in zip(f.features, r.features, strict=True)
    )
    total = plain.total + 0.7 * adversarial + 2.0 * features
    expected = torch.autograd.grad(total, list(reference.model.parameters()), retain_graph=True)
    fake = net(out.x_hat.detach())
    theirs = sum(
        ((r.logits - 1) ** 2).mean() + (f.logits**2).mean() for f, r in zip(fake, real, strict=True)
    )
    expected_theirs = torch.autograd.grad(theirs, list(net.parameters()))

    logs, pairs = task._accumulate_gradients([part], Progress(0, 24, 0))
    assert task.adversary is not None
    figures = task.adversary.learn(pairs, Progress(0, 24, 0))
    assert logs["loss"] == pytest.approx(float(total.detach()), rel=1e-5)
    assert figures["discriminator"] == pytest.approx(float(theirs.detach()), rel=1e-5)
    found = [p.grad for p in task.model.parameters()]
    for gradient, known in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, known, rtol=1e-3, atol=1e-5)
    scale = min(1.0, config.adversarial.optimizer.clip / figures["discriminator_norm"])  # type: ignore[union-attr]
    for p, known in zip(task.adversary.net.parameters(), expected_theirs, strict=True):
        torch.testing.assert_close(p.grad, scale * known, rtol=1e-3, atol=1e-5)


def test_the_generators_half_leaves_the_discriminators_alone(tiny: Tiny) -> None:
    task = task_of(gan(tiny))
    assert task.adversary is not None
    task._accumulate_gradients(parts_of(task, 0), Progress(0, 24, 0))
    assert all(p.grad is None for p in task.adversary.net.parameters())
    assert all(p.requires_grad for p in task.adversary.net.parameters())


def test_the_turns_follow_start_and_every_and_alternate(tiny: Tiny) -> None:
    task = task_of(gan(tiny, start=4, warmup=4, unit="steps", every=3, alternate=True))
    moved = []
    for step in range(10):
        before = weights(task)
        assert task.step(parts_of(task, step), Progress(step, 24, 0)).fault is None
        after = weights(task)
        moved.append({name for name in before if changed(before[name], after[name])})
    theirs = {6, 9}  # from step 4 on, every third one
    assert [step for step in range(10) if "discriminators" in moved[step]] == sorted(theirs)
    assert [step for step in range(10) if "model" not in moved[step]] == sorted(theirs)


def test_the_terms_come_with_the_discriminators_and_their_weight_rises(tiny: Tiny) -> None:
    task = task_of(gan(tiny, start=2, warmup=4, unit="steps"))
    logs = [task.step(parts_of(task, step), Progress(step, 24, 0)).logs for step in range(8)]
    assert ["adversarial" in log for log in logs] == [False] * 2 + [True] * 6
    share = [log["weighted.features"] / log["features"] for log in logs[2:]]
    assert share == pytest.approx([0, 1.25, 2.5, 3.75, 5, 5], rel=1e-5)


def test_a_bad_number_changes_nothing_on_either_side(tiny: Tiny) -> None:
    task = task_of(gan(tiny, balancer={}))
    assert task.adversary is not None
    for step in range(2):
        task.step(parts_of(task, step), Progress(step, 24, 0))
    before, state = weights(task), copy.deepcopy(task.state_dict().values)
    handle = next(task.adversary.net.parameters()).register_hook(lambda g: g * torch.inf)
    outcome = task.step(parts_of(task, 2), Progress(2, 24, 0))
    assert outcome.fault == "non-finite discriminator's gradient"
    handle.remove()
    after = weights(task)
    assert not any(changed(before[name], after[name]) for name in before)
    assert task.state_dict().values == state
    twin = task_of(gan(tiny, balancer={}))
    for step in range(2):
        twin.step(parts_of(twin, step), Progress(step, 24, 0))
    for each in (task, twin):
        each.step(parts_of(each, 3), Progress(3, 24, 0))
    ours, its = weights(task), weights(twin)
    assert not any(changed(ours[name], its[name]) for name in ours)


@pytest.mark.parametrize("bottleneck", ["gaussian", "vq"])
def test_a_frozen_encoder_stays_and_the_decoder_learns(tiny: Tiny, bottleneck: str) -> None:
    config = gan(tiny, freeze_encoder=True, start=2, warmup=1, unit="steps")
    if bottleneck == "vq":
        fields = {"kind": "vq", "latent_dim": 4, "codebook_size": 16}
        model = resolve(
            "spec_frame", {"size": 0, "sample_rate": 8_000, "channels": 1, "bottleneck": fields}
        )
        config = config.model_copy(update={"model": model})
    task = task_of(config)
    for step in range(2):
        task.step(parts_of(task, step), Progress(step, 24, 0))
    before = weights(task)["model"]
    task.step(parts_of(task, 2), Progress(2, 24, 0))
    moved = changed(before, weights(task)["model"])
    z = torch.randn(1, task.model.latent_dim, 4)
    decoder = torch.autograd.grad(
        task.model.decode(z).square().sum(), list(task.model.parameters()), allow_unused=True
    )
    names = [name for name, _ in task.model.named_parameters()]
    assert moved == {name for name, g in zip(names, decoder, strict=True) if g is not None}


def test_the_balancer_leaves_the_other_terms_their_weight(tiny: Tiny) -> None:
    """The gradient of every weight: the balanced one at x_hat passed on, plus that of the weighed KL."""
    config = gan(tiny, balancer={"items": 5})
    task, reference = task_of(config), task_of(config)
    part, at = parts_of(task, 0)[0], Progress(0, 24, 0)
    eps = reference._chance(part.items, at)
    weighed, x_hat = reference.forward(part.batch.x, eps, at)
    balanced = torch.zeros_like(x_hat)
    names = [n for n in weighed.weights if n != "kl"]
    for name in names:
        (g,) = torch.autograd.grad(weighed.raw[name], x_hat, retain_graph=True)
        norm = g.flatten(1).norm(dim=1).mean()
        share = weighed.weights[name] / sum(weighed.weights[n] for n in names)
        balanced += 5 / len(x_hat) * share * g / norm
    known = torch.autograd.grad(
        [x_hat, weighed.weights["kl"] * weighed.raw["kl"]],
        list(reference.model.parameters()),
        [balanced, None],
    )
    task._accumulate_gradients([part], at)
    for p, gradient in zip(task.model.parameters(), known, strict=True):
        torch.testing.assert_close(p.grad, gradient, rtol=1e-3, atol=1e-6)


def test_a_family_that_trains_on_a_likelihood_has_nothing_to_hear(tiny: Tiny) -> None:
    model = resolve("wave_vae", {"size": 0, "sample_rate": 8_000})
    with pytest.raises(
        ConfigError, match=r"WaveVAE trains on a likelihood, .* leave adversarial out"
    ):
        task_of(gan(tiny).model_copy(update={"model": model}))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"alternate": True}, "every must be at least 2, got 1"),
        ({"start": 0.95}, "together up to 1, got 0.95 and 0.1"),
        ({"discriminators": [{"kind": "period", "widths": [4, 4]}]}, "strides must hold 2 numbers"),
        ({"discriminators": [{"kind": "bands", "edges": [0.5, 0.1]}]}, "edges must rise"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        AdversarialConfig(**settings)


def test_skipping_every_layer_is_refused(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match=r"skip_features 1 leaves no layer .* has 1"):
        task_of(gan(tiny, skip_features=1))


def test_a_purely_adversarial_training_can_be_validated(tiny: Tiny) -> None:
    config = gan(tiny)
    objective = {"name": "bare", "weights": {"adversarial": 1.0, "features": 4.0}}
    task = task_of(tiny(objective=objective, adversarial=config.adversarial))
    outcome = task.step(parts_of(task, 0), Progress(0, 24, 0))
    assert outcome.fault is None
    assert {n for n in outcome.logs if n.startswith("weighted.")} == {
        "weighted.adversarial",
        "weighted.features",
    }
    assert task.validate(Progress(1, 24, 0)).figures["total"] == 0


def test_a_training_that_has_nothing_to_learn_from_yet_is_refused(tiny: Tiny) -> None:
    late = {"start": 2, "warmup": 1, "unit": "steps"}
    objective = {"name": "bare", "weights": {"adversarial": 1.0}}
    task = task_of(tiny(objective=objective, adversarial=gan(tiny, **late).adversarial))
    with pytest.raises(
        ConfigError, match="nothing to learn from: the discriminators have not begun"
    ):
        task.step(parts_of(task, 0), Progress(0, 24, 0))
    assert task.step(parts_of(task, 2), Progress(2, 24, 0)).fault is None


def test_figures_of_the_discriminators_are_in_every_line_once_they_play(
    tmp_path: Path, tiny: Tiny
) -> None:
    config = gan(tiny, steps=12, every=2, alternate=True).model_copy(update={"log_every": 2})
    folder = run(config, tmp_path / "run", quiet=True)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "validation" not in line]
    assert len(lines) == 6 and all("discriminator" in line for line in lines)


def test_the_same_settings_resume_a_run(tmp_path: Path, tiny: Tiny) -> None:
    """Though they name less of a discriminator than the run folder holds."""
    settings = {
        "discriminators": [{"kind": "patches", "n_ffts": [64], "patch": 8, "width": 8}],
        **AT_ONCE,
    }
    config = tiny(objective={"name": "spectral"}, adversarial=settings, steps=4)
    run(config, tmp_path / "run", quiet=True)
    again = tiny(objective={"name": "spectral"}, adversarial=settings, steps=4)
    run(again, tmp_path / "run", resume=True, quiet=True)
    other = tiny(objective={"name": "spectral"}, adversarial={**settings, "loss": "lsgan"}, steps=4)
    with pytest.raises(ConfigError, match=r"adversarial\.loss was hinge, now lsgan"):
        run(other, tmp_path / "run", resume=True, quiet=True)


def test_weights_of_terms_that_nobody_gives_are_refused(tiny: Tiny) -> None:
    with pytest.raises(ValidationError, match="features needs discriminators"):
        tiny(objective={"weights": {"features": 1.0}})
    with pytest.raises(ValidationError, match="accumulate must be 1, got 2"):
        tiny(adversarial={"balancer": {}}, accumulate=2)
    with pytest.raises(ValidationError, match="set learn_sigma to false"):
        tiny(adversarial={"balancer": {}}, objective={"learn_sigma": True})


@pytest.mark.parametrize("balancer", [None, {}])
def test_a_stopped_run_goes_on_bit_for_bit(
    tmp_path: Path, tiny: Tiny, child: Any, ended: Any, balancer: Any
) -> None:
    """Discriminators, both optimizers and the balancer's averages are in the checkpoint."""
    config = gan(tiny, steps=12, balancer=balancer, every=2, window_seconds=0.05)
    whole = run(config, tmp_path / "whole", quiet=True)
    part = tmp_path / "part"

    def stopped() -> None:
        step = AutoencoderTask.step

        def stopping(self: AutoencoderTask, parts: Any, at: Progress) -> Any:
            if at.step == 6:
                os.kill(os.getpid(), signal.SIGTERM)
            return step(self, parts, at)

        AutoencoderTask.step = stopping  # type: ignore[method-assign]
        run(config, part, quiet=True)

    process = child(stopped)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 143
    run(None, part, resume=True, quiet=True)
    assert ended(part).differs_from(ended(whole)) == []
    names = ended(part).tensors
    assert any(".adversary.net." in name or ":adversary.net." in name for name in names)


def test_micro_batches_are_the_batch(tiny: Tiny) -> None:
    """The gradient of both halves is the mean over micro-batches."""
    scale = ScaleConfig(scales=1, widths=(4,), kernel_sizes=(5,), strides=(2,), groups=(1,))
    one, two = (task_of(gan(tiny, discriminators=(scale,), accumulate=n)) for n in (1, 2))
    with Feed(one.data, 0, [range(4)], CPU) as feed:
        whole = feed.parts(0)
    with Feed(one.data, 0, [range(2), range(2, 4)], CPU) as feed:
        halves = feed.parts(0)
    gradients = []
    for task, parts in ((one, whole), (two, halves)):
        assert task.adversary is not None
        task.objective.weights = {"l1": 1.0, "kl": 1e-3}  # means over items
        _, pairs = task._accumulate_gradients(parts, Progress(0, 24, 0))
        task.adversary.learn(pairs, Progress(0, 24, 0))
        nets = [*task.model.parameters(), *task.adversary.net.parameters()]
        gradients.append([p.grad for p in nets])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
