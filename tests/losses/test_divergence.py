"""The KL against torch.distributions; free bits stop the gradient where they should."""

from __future__ import annotations

import torch
from torch.distributions import Normal, kl_divergence

from audiovae.losses.divergence import kl_per_dimension, kl_rate


def test_rate_equals_torch_distributions() -> None:
    mu, logvar = torch.randn(2, 3, 4, 10).unbind(0)
    kl = kl_divergence(Normal(mu, (logvar / 2).exp()), Normal(0, 1))
    torch.testing.assert_close(kl_rate(mu, logvar, 0.25), kl.sum((1, 2)).mean() / 0.25)
    torch.testing.assert_close(kl_per_dimension(mu, logvar), kl.mean((0, 2)))


def test_a_dimension_below_its_free_nats_costs_them_and_is_left_alone() -> None:
    mu = torch.tensor([0.1, 2.0]).view(1, 2, 1).expand(2, 2, 5).clone().requires_grad_()
    logvar = torch.zeros(2, 2, 5)
    value = kl_rate(mu, logvar, 5.0, free=0.5)  # the KLs are 0.005 and 2 nats per frame
    torch.testing.assert_close(value, torch.tensor(2.5))
    (gradient,) = torch.autograd.grad(value, mu)
    assert gradient[:, 0].abs().max() == 0
    assert gradient[:, 1].min() > 0


def test_frames_that_an_item_lacks_neither_cost_nor_dilute() -> None:
    mu, logvar = torch.randn(2, 2, 3, 6).unbind(0)
    mask = torch.tensor([[True] * 6, [True] * 2 + [False] * 4])
    kl = kl_divergence(Normal(mu, (logvar / 2).exp()), Normal(0, 1))
    real = torch.cat([kl[0], kl[1, :, :2]], dim=1)  # [D, 8]
    torch.testing.assert_close(kl_per_dimension(mu, logvar, mask), real.mean(1))
    torch.testing.assert_close(kl_rate(mu, logvar, 0.5, mask=mask), real.sum() / 2 / 0.5)
    free = float(real.mean(1).max()) + 1  # every dimension is below it
    value = kl_rate(mu, logvar, 0.5, free=free, mask=mask)
    torch.testing.assert_close(value, torch.tensor(3 * free * 4 / 0.5))  # four real frames a clip


def test_free_nats_are_of_the_mean_over_batch_and_frames() -> None:
    mu = torch.zeros(2, 1, 4)
    mu[0, 0, 0] = 4.0  # 8 nats in one of eight frames: 1 in the mean
    value = kl_rate(mu, torch.zeros_like(mu), 4.0, free=1.0)
    torch.testing.assert_close(value, torch.tensor(1.0))
