"""The optimizer's side of a step: the schedules of its rate, and what a checkpoint keeps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from audiovae.training.descent import Descent, OptimizerConfig, rate_factor
from audiovae.training.schedules import Progress


def at(step: int, total: int = 1_000) -> Progress:
    return Progress(step, total, 0)


def test_exponential_is_torchs() -> None:
    config = OptimizerConfig(schedule="exponential", gamma=0.99, warmup=0.0)
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    theirs = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99)
    for step in range(50):
        assert rate_factor(config, at(step)) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()


def test_linear_is_torchs_and_stays_at_its_end() -> None:
    config = OptimizerConfig(schedule="linear", final=0.1, linear_steps=20, warmup=0.0)
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    theirs = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=20)
    for step in range(40):
        assert rate_factor(config, at(step)) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    to_the_end = OptimizerConfig(schedule="linear", final=0.1, warmup=0.0)
    assert rate_factor(to_the_end, at(999)) == pytest.approx(0.1)


def test_inverse_is_stable_audios() -> None:
    """(1 - warmup^(n + 1)) / sqrt(1 + n / inv_gamma), warmup 0.999."""
    config = OptimizerConfig(schedule="inverse", inverse_steps=200_000)
    for step, expected in ((0, 0.001), (9, 1 - 0.999**10), (600_000, 0.5)):
        assert rate_factor(config, at(step, 10**6)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("schedule", ["exponential", "linear"])
def test_a_warm_up_rises_to_the_schedule(schedule: str) -> None:
    warm = OptimizerConfig(schedule=schedule, warmup=0.1, gamma=0.999)  # type: ignore[arg-type]
    plain = warm.model_copy(update={"warmup": 0.0})
    shares = [rate_factor(warm, at(s)) / rate_factor(plain, at(s)) for s in (0, 49, 100, 500)]
    assert shares == pytest.approx([1 / 101, 50 / 101, 1, 1])


def test_its_moments_come_back() -> None:
    def steps(descent: Descent, net: nn.Module, *numbers: int) -> None:
        for number in numbers:
            (net(torch.full((2, 3), float(number))).square().sum()).backward()
            descent.clip()
            descent.descend(at(number))

    torch.manual_seed(0)
    one, two = nn.Linear(3, 2), nn.Linear(3, 2)
    whole, part = Descent(one, OptimizerConfig()), Descent(two, OptimizerConfig())
    two.load_state_dict(one.state_dict())
    steps(whole, one, 1, 2, 3, 4)
    steps(part, two, 1, 2)
    again = Descent(two, OptimizerConfig())
    again.load(part.tensors())
    steps(again, two, 3, 4)
    assert torch.equal(one.weight, two.weight)
    assert torch.equal(one.bias, two.bias)
