"""The Gaussian bottleneck against torch.distributions, and how its noise depends on nothing but its generators."""

import math

import torch
from torch.distributions import Normal, kl_divergence

from audiovae.bottlenecks import Gaussian, GaussianConfig
from audiovae.nn.noise import generators


def test_kl_is_a_rate_and_matches_torch_distributions():
    torch.manual_seed(0)
    out = Gaussian(GaussianConfig(latent_dim=3), 5, frame_rate=40.0)(
        torch.randn(2, 5, 20), sample=False
    )
    mu, logvar = out.moments
    exact = kl_divergence(Normal(mu, (logvar / 2).exp()), Normal(0.0, 1.0))
    seconds = 20 / 40.0
    torch.testing.assert_close(out.terms["kl"], exact.sum((1, 2)).mean() / seconds)


def test_samples_have_the_moments_and_without_sampling_z_is_the_mean():
    bottleneck = Gaussian(GaussianConfig(latent_dim=1), None, frame_rate=1.0)
    h = torch.tensor([0.7, -1.0]).view(1, 2, 1).expand(1, 2, 100_000)
    out = bottleneck(h, sample=True, generators=generators(0, items=1))
    mu, logvar = out.moments
    assert abs(out.z.mean() - 0.7) < 0.01
    assert abs(out.z.std() - math.exp(float(logvar[0, 0, 0]) / 2)) < 0.01
    torch.testing.assert_close(bottleneck(h, sample=False).z, mu, rtol=0, atol=0)


def test_an_item_gets_the_same_draw_in_any_batch():
    torch.manual_seed(0)
    bottleneck, h = Gaussian(GaussianConfig(latent_dim=2), 4, 1.0), torch.randn(3, 4, 6)
    together = bottleneck(h, sample=True, generators=generators(9, items=3)).z
    last = bottleneck(h[2:], sample=True, generators=generators(9, items=1, first=2)).z
    torch.testing.assert_close(together[2:], last)


def test_logvar_is_bounded_and_keeps_its_gradient():
    config = GaussianConfig(latent_dim=1, logvar_range=(-12.0, 4.0))
    h = torch.tensor([[0.0, 0.0, 0.0], [-20.0, 0.0, 20.0]]).unsqueeze(0).requires_grad_()
    logvar = Gaussian(config, None, 1.0)(h, sample=False).moments[1]
    logvar.sum().backward()
    assert ((logvar > -12) & (logvar < 4)).all()
    assert (h.grad[0, 1] > 0).all()


def test_a_fresh_latent_is_heard_through_little_noise():
    torch.manual_seed(0)
    bottleneck = Gaussian(GaussianConfig(latent_dim=8), 32, 1.0)
    sigma = (bottleneck(torch.randn(4, 32, 50), sample=False).moments[1] / 2).exp()
    assert 0.02 < sigma.mean() < 0.1


def test_softplus_gives_the_scale_of_stable_audio():
    config = GaussianConfig(latent_dim=1, parametrisation="softplus")
    h = torch.tensor([[0.0] * 3, [-3.0, 0.0, 5.0]]).unsqueeze(0)
    logvar = Gaussian(config, None, 1.0)(h, sample=False).moments[1]
    scale = torch.nn.functional.softplus(h[0, 1]) + 1e-4
    torch.testing.assert_close((logvar[0, 0] / 2).exp(), scale)
