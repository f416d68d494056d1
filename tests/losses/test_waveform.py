"""The Gaussian log-density against torch.distributions, its floor, and L1."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal

from audiovae.losses.waveform import gaussian_nll, l1


def test_l1_is_the_mean_absolute_difference() -> None:
    assert float(l1(torch.tensor([[[1.0, -1.0]]]), torch.tensor([[[0.5, 1.0]]]))) == 1.25


@pytest.mark.parametrize("shape", [(), (2, 1), (3, 2, 40)])
def test_density_equals_torch_distributions(shape: tuple[int, ...]) -> None:
    x_hat, x = torch.randn(2, 3, 2, 40).unbind(0)
    log_sigma = torch.randn(shape)
    seconds = 40 / 8000
    expected = -Normal(x_hat, log_sigma.exp()).log_prob(x).sum((1, 2)).mean() / seconds
    torch.testing.assert_close(gaussian_nll(x_hat, x, log_sigma, 8000), expected)


def test_twice_the_clip_is_the_same_rate() -> None:
    x_hat, x = torch.randn(2, 1, 1, 40).unbind(0)
    once = gaussian_nll(x_hat, x, torch.tensor(0.1), 8000)
    twice = gaussian_nll(x_hat.repeat(1, 1, 2), x.repeat(1, 1, 2), torch.tensor(0.1), 8000)
    torch.testing.assert_close(once, twice)


def test_a_perfect_reconstruction_is_not_infinitely_likely() -> None:
    x = torch.zeros(1, 1, 10)
    log_sigma = torch.tensor(-100.0, requires_grad=True)
    value = gaussian_nll(x, x, log_sigma, 10, log_sigma_floor=-5.0)
    assert float(value) == pytest.approx(10 * (-5 + 0.5 * math.log(2 * math.pi)))
    (gradient,) = torch.autograd.grad(value, log_sigma)
    assert gradient == 0  # the density would push it further down


def test_a_log_sigma_below_the_floor_can_come_back() -> None:
    x = torch.zeros(1, 1, 10)
    log_sigma = torch.tensor(-6.0, requires_grad=True)
    gaussian_nll(x + 1, x, log_sigma, 10, log_sigma_floor=-5.0).backward()
    assert log_sigma.grad is not None
    assert log_sigma.grad < 0


def test_a_learned_log_sigma_finds_the_spread_of_the_error() -> None:
    x = torch.zeros(1, 1, 4000)
    x_hat = 0.2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    log_sigma = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.Adam([log_sigma], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        gaussian_nll(x_hat, x, log_sigma, 4000).backward()
        optimizer.step()
    assert float(log_sigma.exp()) == pytest.approx(0.2, rel=0.05)
