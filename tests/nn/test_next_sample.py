"""Distributions of a sample: they sum to one, draw what they say, and their curve is everyone's mu-law."""

import numpy as np
import pytest
import torch

from audiovae.nn.next_sample import PCM, LogisticMixture, MuLaw, compress, expand

FAMILIES = {"mu_law": MuLaw(), "logistic_mixture": LogisticMixture(3)}


def numbers(family, *, t=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(1, family.n_parameters, t, generator=generator)


def every_value(family):
    """All values that a sample can have, [N]."""
    return family.values() if isinstance(family, MuLaw) else torch.arange(-PCM, PCM) / PCM


def grid(n):
    """n uniform numbers as even as they get, [n] float64."""
    return (torch.arange(n, dtype=torch.float64) + 0.5) / n


def test_the_curve_is_mu_law_s():
    """In float64 by its formula; its first step is 255 / log(256) = 46 times as steep as the sound."""
    x = np.linspace(-1, 1, 1001)
    s = np.sign(x) * np.log(1 + 255 * np.abs(x)) / np.log(256)
    np.testing.assert_allclose(compress(torch.tensor(x).float()), s, atol=1e-6)
    np.testing.assert_allclose(expand(torch.tensor(s).float()), x, atol=1e-6)
    levels = np.arange(-128, 128) / 128
    values = np.sign(levels) * (256 ** np.abs(levels) - 1) / 255
    np.testing.assert_allclose(MuLaw().values(), values, atol=1e-6)
    assert compress(torch.tensor(1e-5)).item() == pytest.approx(1e-5 * 255 / np.log(256), rel=2e-3)


def test_beyond_full_scale_is_full_scale():
    assert compress(torch.tensor([-3.0, 3.0])).tolist() == [-1.0, 1.0]
    for family in FAMILIES.values():
        loud, full = family.quantise(torch.tensor([3.0, 1.0]))
        assert loud == full == every_value(family)[-1]


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_quantised_values_stay_and_silence_is_one(family):
    values = every_value(family)
    assert torch.equal(family.quantise(values), values)
    assert 0.0 in values
    x = torch.linspace(-1, values[-1].item(), 777)
    nearest = values[(x[:, None] - values).abs().argmin(1)] if len(values) == 256 else None
    if nearest is not None:  # nearest on the curve, which is not always nearest in the air
        error = (compress(family.quantise(x)) - compress(x)).abs()
        assert error.max() <= 0.5 / 128 + 1e-6
    else:
        assert (family.quantise(x) - x).abs().max() <= 0.5 / PCM


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("seed", range(3))
def test_probabilities_sum_to_one(family, seed):
    values = every_value(family)
    p = numbers(family, seed=seed).expand(1, -1, len(values))
    log_prob = family.log_prob(p, values[None])
    assert log_prob.max() <= 0
    assert log_prob.double().exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_mixture_equals_differences_of_distribution_functions_in_float64():
    family = LogisticMixture(2)
    p = torch.tensor([0.3, -0.2, 0.1, -0.4, -2.0, -3.0])[None, :, None].expand(1, -1, 5)
    x = torch.tensor([[-1.0, -0.5, 0.0, 0.25, (PCM - 1) / PCM]])

    def below(edge, mean, log_scale):
        scale = np.exp(np.logaddexp(log_scale + 9, 0) - 9)
        return 1 / (1 + np.exp(-(edge - mean) / scale))

    weights = np.exp([0.3, -0.2]) / np.exp([0.3, -0.2]).sum()
    for value, found in zip(x[0].double().numpy(), family.log_prob(p, x)[0], strict=True):
        parts = [
            (1.0 if value == (PCM - 1) / PCM else below(value + 0.5 / PCM, m, s))
            - (0.0 if value == -1 else below(value - 0.5 / PCM, m, s))
            for m, s in ((0.1, -2.0), (-0.4, -3.0))
        ]
        assert found.item() == pytest.approx(np.log(weights @ parts), abs=1e-4)


@pytest.mark.parametrize("scale", [-30.0, 30.0])
def test_mixture_is_finite_with_gradients_at_any_scale(scale):
    family = LogisticMixture(1)
    p = torch.tensor([0.0, 0.9, scale])[None, :, None].expand(1, -1, 3).clone().requires_grad_()
    family.log_prob(p, torch.tensor([[-1.0, 0.0, 1.0]])).sum().backward()
    assert p.grad.isfinite().all()


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_mean_is_the_probabilities_mean(family):
    values = every_value(family)
    p = numbers(family)
    if family.n_parameters == 9:  # inside full scale, where clipping does not move the mean
        p[:, 3:6], p[:, 6:] = 0.3 * p[:, 3:6].tanh(), -4.0
    probabilities = family.log_prob(p.expand(1, -1, len(values)), values[None]).exp()
    expected = (probabilities.double() * values).sum()
    assert family.mean(p).item() == pytest.approx(expected.item(), abs=1e-4)
    with torch.autocast("cpu", torch.bfloat16):  # which rounds products of matrices
        assert family.mean(p).item() == pytest.approx(expected.item(), abs=1e-4)


def test_draws_of_levels_have_their_probabilities():
    family, n = MuLaw(), 2_000
    p = numbers(family)[..., 0]
    uniforms = torch.stack([grid(n), torch.zeros(n)], 1)
    x = family.draw(p.expand(n, -1), uniforms, 1.0)
    shares = (x[:, None] == family.values()).double().mean(0)
    torch.testing.assert_close(shares, p[0].softmax(0).double(), rtol=0, atol=2 / n)


def test_draws_of_a_mixture_have_its_distribution():
    """Even numbers in both dimensions: the share of draws up to a value is its cumulative probability."""
    family, n = LogisticMixture(3), 300
    p = numbers(family, seed=4)[..., 0]
    uniforms = torch.cartesian_prod(grid(n), grid(n))
    x = family.draw(p.expand(n * n, -1), uniforms, 1.0)
    values = every_value(family)
    cumulative = family.log_prob(p[..., None].expand(1, -1, len(values)), values[None]).exp()
    cumulative = cumulative.double().cumsum(1)[0]
    for place in range(0, len(values), 5000):
        share = (x <= values[place]).double().mean()
        assert share.item() == pytest.approx(cumulative[place].item(), abs=2.5 * 3 / n)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_temperature_goes_from_the_most_probable_to_the_distribution_itself(family):
    p, n = numbers(family, seed=1)[..., 0].expand(100, -1), 100
    uniforms = torch.stack([grid(n), grid(n)[torch.randperm(n)]], 1)
    cold, cool, warm = (family.draw(p, uniforms, t) for t in (0.0, 0.3, 1.0))
    assert cold.unique().numel() == 1
    assert 0 < cool.std() < warm.std()
    if isinstance(family, MuLaw):
        assert cold[0] == family.values()[p[0].argmax()]
    else:
        assert cold[0] == family.quantise(p[0, 3 + p[0, :3].argmax()])


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_uniform_numbers_at_the_ends_give_samples(family):
    p = numbers(family)[..., 0].expand(2, -1)
    ends = torch.tensor([[0.0, 0.0], [1 - 2**-53, 1 - 2**-53]], dtype=torch.float64)
    x = family.draw(p, ends, 1.0)
    assert x.isfinite().all() and x.abs().max() <= 1
