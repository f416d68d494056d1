"""Densities and divergences against torch.distributions."""

import torch
from torch.distributions import Normal, kl_divergence

from audiovae.nn.densities import gaussian_log_prob, kl_standard_normal, smooth_bound


def test_log_prob_matches_torch_distributions():
    x, mean, log_sigma = torch.randn(3, 100, generator=torch.Generator().manual_seed(0))
    expected = Normal(mean, log_sigma.exp()).log_prob(x)
    torch.testing.assert_close(gaussian_log_prob(x, mean, log_sigma), expected)


def test_kl_matches_torch_distributions():
    mu, logvar = torch.randn(2, 100, generator=torch.Generator().manual_seed(0))
    expected = kl_divergence(Normal(mu, (logvar / 2).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(kl_standard_normal(mu, logvar), expected)


def test_smooth_bound_stays_inside_and_keeps_a_gradient():
    x = torch.tensor([-60.0, -4.0, 0.0, 30.0], dtype=torch.float64, requires_grad=True)
    y = smooth_bound(x, -12.0, 4.0)
    y.sum().backward()
    assert ((y > -12) & (y < 4)).all()
    assert (x.grad > 0).all()
    assert y[1] == -4.0  # the middle stays where it is
    assert x.grad[1] == 1.0
