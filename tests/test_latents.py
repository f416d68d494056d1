"""Latents: paths end at their ends, statistics against numpy, samples have the moments they were asked for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from audiovae.errors import LatentError
from audiovae.latents import LatentFit, LatentStatistics, interpolate, sample_prior, stretch
from audiovae.nn.noise import generators

PATHS = ["linear", "spherical"]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_ends_at_both_ends(path: str) -> None:
    a, b = torch.randn(1, 3, 5), torch.randn(1, 3, 8)
    torch.testing.assert_close(interpolate(a, b, 0.0, path=path), a)
    torch.testing.assert_close(interpolate(a, b, 1.0, path=path), b)


@pytest.mark.parametrize("path", PATHS)
@given(share=st.floats(0, 1))
def test_the_way_back_is_the_way_there(path: str, share: float) -> None:
    a, b = torch.randn(2, 2, 3, 5, dtype=torch.float64).unbind(0)
    torch.testing.assert_close(
        interpolate(a, b, share, path=path), interpolate(b, a, 1 - share, path=path)
    )


def test_the_spherical_path_keeps_the_norm_and_the_linear_one_sags() -> None:
    a, b = torch.tensor([3.0, 0.0]).view(1, 2, 1), torch.tensor([0.0, 3.0]).view(1, 2, 1)
    middle = interpolate(a, b, 0.5, path="spherical")
    torch.testing.assert_close(middle.flatten(), torch.full((2,), 3 / math.sqrt(2)))
    torch.testing.assert_close(interpolate(a, b, 0.5).flatten(), torch.full((2,), 1.5))


@pytest.mark.parametrize("b", [2.0, -1.0, 0.0])
def test_directions_without_a_plane_between_them_go_straight(b: float) -> None:
    a = torch.ones(1, 2, 3)
    torch.testing.assert_close(
        interpolate(a, b * a, 0.25, path="spherical"), a * (0.75 + 0.25 * b), atol=1e-3, rtol=0
    )


def test_a_stretched_line_is_the_same_line() -> None:
    line = torch.linspace(-1, 1, 7).view(1, 1, 7)
    torch.testing.assert_close(stretch(line, 4).flatten(), torch.linspace(-1, 1, 4))
    assert interpolate(line, stretch(line, 3), 0.5).shape[-1] == 5


def test_latents_of_two_models_do_not_mix() -> None:
    with pytest.raises(LatentError, match=r"equal batch and dims, got \(1, 3, 5\) and \(1, 4, 5\)"):
        interpolate(torch.zeros(1, 3, 5), torch.zeros(1, 4, 5), 0.5)


def walk(clips: int, frames: int, seed: int = 0) -> Tensor:
    """A stationary process of two dimensions in which the second follows the first, [clips, 2, frames]."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(clips, 2, frames + 50, generator=generator, dtype=torch.float64)
    z = torch.zeros_like(noise)
    for f in range(1, frames + 50):
        z[..., f] = noise[..., f] + 0.8 * z[..., f - 1]
        z[:, 1, f] += z[:, 0, f - 1]
    return z[..., 50:] + torch.tensor([1.0, -2.0]).view(1, 2, 1)


def fitted(batches: list[Tensor], logvar: float = -2.0) -> LatentStatistics:
    fit = LatentFit(2)
    for mu in batches:
        fit.update(mu, torch.full_like(mu, logvar))
    return fit.statistics()


def test_statistics_equal_numpy() -> None:
    mu = walk(3, 40)
    ours = fitted([mu])
    flat = mu.transpose(0, 1).flatten(1).numpy()
    np.testing.assert_allclose(ours.mean, flat.mean(1), rtol=1e-5)
    spread = np.cov(flat, bias=True)
    np.testing.assert_allclose(ours.mean_variance, spread.diagonal(), rtol=1e-5)
    np.testing.assert_allclose(ours.covariances[0], spread + np.exp(-2) * np.eye(2), rtol=1e-5)
    centred = mu.numpy() - flat.mean(1)[:, None]
    for lag in (1, 4):
        late, early = centred[..., lag:], centred[..., :-lag]
        expected = np.einsum("bif,bjf->ij", late, early) / (3 * 40)
        np.testing.assert_allclose(ours.covariances[lag], expected, rtol=1e-4)
    np.testing.assert_allclose(ours.kl, 0.5 * ((flat**2).mean(1) + np.exp(-2) + 2 - 1), rtol=1e-5)
    assert int(ours.frames) == 120


def test_the_order_and_size_of_batches_do_not_matter() -> None:
    mu = walk(4, 20)
    for a, b in zip(fitted([mu]), fitted([mu[3:], mu[:1], mu[1:3]]), strict=True):
        torch.testing.assert_close(a, b)


def test_frames_that_an_item_lacks_are_not_counted() -> None:
    mu = walk(3, 20)
    mask = torch.arange(20) < torch.tensor([20, 7, 13])[:, None]
    fit, alone = LatentFit(2), LatentFit(2)
    fit.update(mu, torch.zeros_like(mu), mask)
    for item, frames in zip(mu.split(1), (20, 7, 13), strict=True):
        alone.update(item[..., :frames], torch.zeros_like(item[..., :frames]))
    for a, b in zip(fit.statistics(), alone.statistics(), strict=True):
        assert torch.equal(a, b)
    assert int(fit.statistics().frames) == 40


def test_statistics_survive_the_way_through_tensors() -> None:
    ours = fitted([walk(2, 30)])
    again = LatentStatistics.from_tensors(ours.to_tensors())
    assert all(torch.equal(a, b) for a, b in zip(ours, again, strict=True))
    with pytest.raises(LatentError, match="statistics lack kl, frames"):
        LatentStatistics.from_tensors(
            {k: v for k, v in ours.to_tensors().items() if k[0] not in "kf"}
        )


def test_statistics_of_nothing_or_of_something_else_are_refused() -> None:
    with pytest.raises(LatentError, match="no latent was seen"):
        LatentFit(2).statistics()
    with pytest.raises(LatentError, match=r"\[batch, 2, frames\], got \(1, 3, 4\)"):
        LatentFit(2).update(torch.zeros(1, 3, 4), torch.zeros(1, 3, 4))


def test_a_single_frame_is_enough_for_statistics_and_samples() -> None:
    ours = fitted([torch.ones(1, 2, 1)])
    drawn = sample_prior(2, 7, generators=generators(0, items=3), statistics=ours)
    assert drawn.isfinite().all()


def test_samples_of_the_aggregate_posterior_have_its_moments() -> None:
    wanted = fitted([walk(40, 500)])
    drawn = sample_prior(2, 500, generators=generators(1, items=40), statistics=wanted)
    got = fitted([drawn.double()], logvar=-50.0)  # samples have no posterior of their own
    torch.testing.assert_close(got.mean, wanted.mean, atol=0.25, rtol=0)
    scale = wanted.covariances[0].diagonal().sqrt()
    difference = (got.covariances - wanted.covariances) / torch.outer(scale, scale)
    assert difference.abs().max() < 0.05


def test_the_first_frames_have_the_same_spread_as_the_rest() -> None:
    wanted = fitted([walk(40, 500)])
    drawn = sample_prior(2, 6, generators=generators(2, items=4000), statistics=wanted)
    spread = drawn.var(0) / wanted.covariances[0].diagonal()[:, None]  # [2, 6]
    assert (spread - 1).abs().max() < 0.1


def test_without_statistics_samples_are_standard_normal() -> None:
    drawn = sample_prior(4, 5000, generators=generators(3, items=2))
    assert float(drawn.mean()) == pytest.approx(0, abs=0.02)
    assert float(drawn.std()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("statistics", [None, fitted([walk(5, 50)])], ids=["normal", "aggregate"])
def test_temperature_scales_the_spread_around_the_mean(statistics: LatentStatistics | None) -> None:
    def drawn(temperature: float) -> Tensor:
        return sample_prior(
            2, 9, generators=generators(4, items=2), temperature=temperature, statistics=statistics
        )

    mean = drawn(0.0)
    expected = torch.zeros(2) if statistics is None else statistics.mean
    torch.testing.assert_close(mean, expected.view(1, 2, 1).expand(2, 2, 9))
    torch.testing.assert_close(drawn(0.5) - mean, 0.5 * (drawn(1.0) - mean))


def test_a_sample_depends_on_its_own_generator_alone() -> None:
    two = sample_prior(3, 8, generators=generators(5, items=2))
    one = sample_prior(3, 8, generators=generators(5, items=1, first=1))
    assert torch.equal(two[1:], one)


def test_statistics_of_another_model_are_refused() -> None:
    with pytest.raises(LatentError, match="statistics are of 2 dimensions, the model has 3"):
        sample_prior(3, 8, generators=generators(0, items=1), statistics=fitted([walk(1, 9)]))
