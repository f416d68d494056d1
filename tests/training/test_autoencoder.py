"""One step of the autoencoder: what it changes, what it must not, and that its parts add up."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from audiovae.data import Dataset, SynthData, open_dataset
from audiovae.models import build
from audiovae.training import TrainConfig
from audiovae.training.autoencoder import AutoencoderTask
from audiovae.training.device import uses_bf16
from audiovae.training.feed import Feed, Part
from audiovae.training.schedules import Progress

Tiny = Callable[..., TrainConfig]
CPU = torch.device("cpu")


def opened(config: TrainConfig) -> Dataset:
    model = config.model
    return open_dataset(
        config.data,
        sample_rate=model.sample_rate,
        channels=model.channels,
        multiple_of=model.hop_length,
    )


def task_of(config: TrainConfig) -> AutoencoderTask:
    torch.manual_seed(0)
    return AutoencoderTask(build(config.model), opened(config), config, CPU)


def parts_of(config: TrainConfig, step: int, *shares: range) -> list[Part]:
    with Feed(opened(config), config.seed, shares or [range(config.batch_size)], CPU) as feed:
        return feed.parts(step)


def everything(task: AutoencoderTask) -> dict[str, Any]:
    """All that a step could change."""
    state = task.state_dict()
    product = {f"product.{name}": t for name, t in task.product.state_dict().items()}
    return copy.deepcopy(state.tensors | product | {"values": state.values})


def equal(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """The names whose values are equal bit for bit."""
    assert a.keys() == b.keys()
    return [
        name
        for name, value in a.items()
        if (torch.equal(value, b[name]) if isinstance(value, Tensor) else value == b[name])
    ]


@pytest.mark.parametrize("poison", ["sound", "gradient", "later micro-batch"])
def test_a_number_that_is_not_finite_changes_nothing(tiny: Tiny, poison: str) -> None:
    config = tiny(accumulate=2)
    task = task_of(config)
    task.model.register_buffer("seen", torch.zeros(()))  # statistics that forward updates
    task.product.register_buffer("seen", torch.zeros(()))
    task.model.register_forward_hook(lambda model, inputs, output: model.seen.add_(1) and None)
    shares = (range(2), range(2, 4))
    for step in range(2):
        assert task.step(parts_of(config, step, *shares), Progress(step, 24, 0)).fault is None
    before = everything(task)
    assert before["model.seen"] == 4
    parts = parts_of(config, 2, *shares)
    if poison == "gradient":
        handle = next(task.model.parameters()).register_hook(lambda g: g * torch.inf)
    else:
        parts[1 if "later" in poison else 0].batch.x[0, 0, 3] = torch.inf
        handle = None
    outcome = task.step(parts, Progress(2, 24, 0))
    assert outcome.fault == ("non-finite gradient" if handle else "non-finite loss")
    assert set(before) == set(equal(before, everything(task)))
    if handle:
        handle.remove()
    assert task.step(parts_of(config, 3, *shares), Progress(3, 24, 0)).fault is None
    moved = set(before) - set(equal(before, everything(task)))
    assert {"model.seen", "product.seen", "values", "optimizer.0.exp_avg"} <= moved


def test_a_state_goes_to_another_task_and_both_go_on_alike(tiny: Tiny) -> None:
    config = tiny()
    ours, theirs = task_of(config), task_of(config)
    for step in range(3):
        ours.step(parts_of(config, step), Progress(step, 24, 0))
    theirs.load_state_dict(copy.deepcopy(ours.state_dict()))
    theirs.product.load_state_dict(ours.product.state_dict())
    for task in (ours, theirs):
        torch.rand(7)  # global chance is no part of a step
        task.step(parts_of(config, 3), Progress(3, 24, 0))
    assert set(everything(ours)) == set(equal(everything(ours), everything(theirs)))


def test_micro_batches_give_the_gradient_of_the_whole(tiny: Tiny) -> None:
    config = tiny()
    whole, split = task_of(config), task_of(config)
    at = Progress(0, 24, 0)
    whole._accumulate_gradients(parts_of(config, 0), at)
    split._accumulate_gradients(parts_of(config, 0, range(2), range(2, 4)), at)
    for a, b in zip(whole.model.parameters(), split.model.parameters(), strict=True):
        assert a.grad is not None and b.grad is not None
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5 * float(a.grad.abs().max()))


def test_the_average_of_the_weights_follows_its_formula(tiny: Tiny) -> None:
    config = tiny(optimizer={"ema_decay": 0.2})
    task = task_of(config)
    averaged = [p.detach().clone() for p in task.product.parameters()]
    for step in range(4):  # 1/10, 2/11, then 0.2
        task.step(parts_of(config, step), Progress(step, 24, 0))
        decay = min(0.2, (1 + step) / (10 + step))
        averaged = [
            decay * a + (1 - decay) * p.detach()
            for a, p in zip(averaged, task.model.parameters(), strict=True)
        ]
    for ours, expected in zip(task.product.parameters(), averaged, strict=True):
        torch.testing.assert_close(ours, expected)


def test_the_gradient_is_clipped_and_its_norm_is_logged_unclipped(tiny: Tiny) -> None:
    config = tiny(optimizer={"clip": 1e-3})
    task = task_of(config)
    task._accumulate_gradients(parts_of(config, 0), Progress(0, 24, 0))
    weights = [*task.model.parameters(), *task.objective.parameters()]

    def norm() -> float:
        return float(torch.cat([p.grad.flatten() for p in weights if p.grad is not None]).norm())

    before = norm()
    assert task.descent.clip() == pytest.approx(before, rel=1e-5)
    assert before > 1e-3 and norm() == pytest.approx(1e-3, rel=1e-3)


def test_only_matrices_and_kernels_decay(tiny: Tiny) -> None:
    task = task_of(tiny())
    decayed, kept = task.descent.optimizer.param_groups
    assert decayed["weight_decay"] == 0.01 and kept["weight_decay"] == 0.0
    assert {p.ndim > 1 for p in decayed["params"]} == {True}
    assert {p.ndim > 1 for p in kept["params"]} == {False}
    held = {id(p) for group in task.descent.optimizer.param_groups for p in group["params"]}
    trained = [*task.model.parameters(), *task.objective.parameters()]
    assert held == {id(p) for p in trained}


def test_validation_measures_the_averaged_weights_on_fixed_clips(tiny: Tiny) -> None:
    config = tiny(data=SynthData(segment_seconds=0.1, valid_crops=11), batch_size=3)
    task = task_of(config)
    first = task.validate(Progress(0, 24, 0))
    task.model.apply(lambda m: nn.init.zeros_(m.weight) if isinstance(m, nn.Linear) else None)
    again = task.validate(Progress(0, 24, 0))
    assert first.figures == again.figures
    assert first.score == first.figures["negative_elbo"]
    assert {"mel", "stft", "si_sdr", "active_units", "bits_per_second"} <= first.figures.keys()
    every = [x for batch in task.data.valid_batches(3) for x in batch.x]
    to_hear = [x for x, _ in first.clips]  # evenly chosen, not the first few
    assert len(to_hear) == 4 and all(map(torch.equal, to_hear, every[::3]))
    assert first.statistics is not None and len(first.statistics.mean) == 4


def test_without_a_likelihood_the_score_is_the_mel_distance(tiny: Tiny) -> None:
    config = tiny(objective={"name": "spectral"})
    report = task_of(config).validate(Progress(0, 24, 0))
    assert report.score == report.figures["mel"]


def test_low_precision_stays_close_and_keeps_weights_in_full(tiny: Tiny) -> None:
    totals = []
    for precision in ("fp32", "bf16"):
        config = tiny(precision=precision)
        task = task_of(config)
        totals.append(task.step(parts_of(config, 0), Progress(0, 24, 0)).logs["loss"])
        assert {p.dtype for p in task.model.parameters()} == {torch.float32}
    assert totals[1] != totals[0]  # it was used
    assert totals[1] == pytest.approx(totals[0], rel=0.02)


def test_precision_is_as_told_or_what_the_processor_multiplies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for has in (False, True):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has)  # noqa: B023
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has)  # noqa: B023
        assert uses_bf16("auto", CPU) is uses_bf16("auto", torch.device("cuda")) is has
        assert uses_bf16("bf16", CPU) and not uses_bf16("fp32", CPU)
    assert not uses_bf16("auto", torch.device("mps"))
