"""The objective: the ELBO against torch.distributions, the composite against auraloss, weights, free bits, control."""

from __future__ import annotations

import itertools
import json
import math

import auraloss
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from audiovae.audio.stereo import mid_side
from audiovae.config import parse
from audiovae.errors import ConfigError
from audiovae.losses.spectral import WINDOWS
from audiovae.models.base import Reconstruction
from audiovae.training.objective import TERMS, Objective, ObjectiveConfig
from audiovae.training.schedules import Progress
from audiovae.training.weights import NAMED_WEIGHTS

# the tables that ask nothing of the model but a Gaussian latent
PLAIN = [
    name
    for name, weights in NAMED_WEIGHTS.items()
    if 0 < len(weights.keys() & TERMS.keys()) == len(weights)
]

RATE = 8_000
NOW = Progress(step=5, total_steps=10, seed=1)


def scene(
    channels: int = 2, kind: torch.dtype = torch.float64, **terms: Tensor
) -> tuple[Reconstruction, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x_hat, x = 0.1 * torch.randn(2, 3, channels, 2400, generator=generator, dtype=kind)
    mu, logvar = torch.randn(2, 3, 4, 10, generator=generator, dtype=kind)
    moments = (mu.requires_grad_(), logvar.requires_grad_())
    return Reconstruction(x_hat.requires_grad_(), mu, (), moments, terms), x


def objective(**settings: object) -> Objective:
    return Objective(parse(ObjectiveConfig, settings), RATE)


def elbo(out: Reconstruction, x: Tensor, sigma: float) -> Tensor:
    """Of a clip, in nats, averaged over the batch; by torch.distributions alone."""
    assert out.moments is not None
    mu, logvar = out.moments
    likelihood = Normal(out.x_hat, sigma).log_prob(x).sum((1, 2))
    prior = Normal(torch.zeros_like(mu), torch.ones_like(mu))
    kl = kl_divergence(Normal(mu, (logvar / 2).exp()), prior).sum((1, 2))
    return (likelihood - kl).mean()


@pytest.mark.parametrize("learn_sigma", [False, True])
def test_beta_one_with_the_density_is_the_elbo(learn_sigma: bool) -> None:
    out, x = scene()
    seconds = x.shape[-1] / RATE
    weighed = objective(name="elbo", log_sigma=-2.0, learn_sigma=learn_sigma)(out, x, NOW)
    expected = -elbo(out, x, math.exp(-2)) / seconds
    torch.testing.assert_close(weighed.total, expected, rtol=1e-12, atol=0)
    leaves = (out.x_hat, *out.moments) if out.moments else ()
    ours, theirs = (torch.autograd.grad(v, leaves) for v in (weighed.total, expected))
    torch.testing.assert_close(ours, theirs)


def test_any_beta_weighs_the_kl_alone() -> None:
    out, x = scene()
    one = objective(name="elbo")(out, x, NOW)
    four = objective(name="elbo", beta={"high": 4.0})(out, x, NOW)
    torch.testing.assert_close(four.total - one.total, 3 * one.raw["kl"])
    assert four.beta == 4


def test_beta_follows_its_schedule() -> None:
    out, x = scene()
    ramped = objective(name="elbo", beta={"kind": "linear", "start": 0, "stop": 1})
    assert [ramped(out, x, NOW._replace(step=s)).beta for s in (0, 5, 10)] == [0, 0.5, 1]


def test_the_mission_objective_is_auraloss_plus_l1() -> None:
    out, x = scene()
    windows = list(WINDOWS)
    peer = auraloss.freq.MultiResolutionSTFTLoss(
        fft_sizes=windows, hop_sizes=[n // 4 for n in windows], win_lengths=windows
    )
    for part in peer.stft_losses:
        part.window = torch.hann_window(part.fft_size, dtype=x.dtype)
    stft = [peer(out.x_hat, x), peer(mid_side(out.x_hat), mid_side(x))]
    expected = len(windows) * sum(stft) / 2 + 7.0 * (out.x_hat - x).abs().mean()
    ours = objective(name="mission", weights={"l1": 7.0, "kl": 0.0}, windows_per_step=0)
    assert ours(out, x, NOW).total.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("name", PLAIN)
def test_the_total_is_the_sum_of_weight_times_term(name: str) -> None:
    out, x = scene()
    ours = objective(name=name, beta={"high": 2.0})
    weighed = ours(out, x, NOW)
    for term, weight in NAMED_WEIGHTS[name].items():
        expected = weight * weighed.raw[term].item() * (2 if term == "kl" else 1)
        assert weighed.weighted[term] == pytest.approx(expected)
    assert weighed.total.item() == pytest.approx(sum(weighed.weighted.values()))


def test_a_term_of_weight_zero_adds_nothing_but_the_kl_is_still_shown() -> None:
    out, x = scene()
    weighed = objective(weights={"mel": 0.0, "kl": 0.0})(out, x, NOW)
    assert "mel" not in weighed.raw
    assert "kl" in weighed.raw
    assert set(weighed.weighted) == {"stft", "l1", "complex"}


def test_the_models_own_term_is_weighed_like_any_other() -> None:
    out, x = scene(commitment=torch.tensor(3.0))
    weighed = objective(weights={"commitment": 0.25})(out, x, NOW)
    assert weighed.weighted["commitment"] == 0.75


def test_unknown_and_unused_names_are_refused() -> None:
    out, x = scene()
    with pytest.raises(
        ConfigError, match=r"weights\.mell weighs a term that does not exist.*'mel'"
    ):
        objective(weights={"mell": 1.0})(out, x, NOW)
    with pytest.raises(ConfigError, match=r"gives the term 'novelty', which has no weight; set"):
        objective()(scene(novelty=torch.tensor(3.0))[0], x, NOW)
    with pytest.raises(ConfigError, match=r"weights\.l1 must be a number from 0 on, got -1"):
        objective(weights={"l1": -1.0})


def test_a_model_without_moments_gives_its_kl_itself_or_needs_none() -> None:
    out, x = scene(kl=torch.tensor(40.0))
    bare = out._replace(moments=None)
    assert objective()(bare, x, NOW).raw["kl"] == 40
    with pytest.raises(ConfigError, match=r"free_bits need .* Gaussian"):
        objective(free_bits=1.0)(bare, x, NOW)
    with pytest.raises(ConfigError, match=r"no KL; set objective\.weights\.kl to 0"):
        objective(weights={"kl": 1.0})(bare._replace(terms={}), x, NOW)
    assert "kl" not in objective(weights={"kl": 0.0})(bare._replace(terms={}), x, NOW).raw


def test_free_bits_cost_without_a_gradient_and_the_log_shows_the_true_kl() -> None:
    out, x = scene()
    free = objective(name="elbo", weights={"gaussian": 0.0}, free_bits=50.0)(out, x, NOW)
    plain = objective(name="elbo", weights={"gaussian": 0.0})(out, x, NOW)
    frames_per_second = 10 * RATE / x.shape[-1]
    assert free.total.item() == pytest.approx(50 * math.log(2) * 4 * frames_per_second)
    torch.testing.assert_close(free.raw["kl"], plain.raw["kl"])
    assert out.moments is not None
    assert all(g.abs().max() == 0 for g in torch.autograd.grad(free.total, out.moments))


def test_the_windows_of_a_step_depend_on_seed_and_step_alone() -> None:
    out, x = scene()
    ours = objective(weights={"kl": 0.0})
    totals = {at: ours(out, x, at).total.item() for at in (NOW, NOW._replace(step=6))}
    assert ours(out, x, NOW).total.item() == totals[NOW]
    assert len(set(totals.values())) == 2
    every = [ours(out, x, at, every_window=True).total.item() for at in totals]
    assert every[0] == every[1]


def test_few_windows_have_the_expectation_of_all() -> None:
    out, x = scene(channels=1, kind=torch.float32)
    few = objective(weights={"kl": 0.0, "complex": 0.0, "l1": 0.0}, windows_per_step=3)
    with torch.no_grad():
        full = few(out, x, NOW, every_window=True).total.item()
        mean = sum(few(out, x, NOW._replace(step=s)).total.item() for s in range(150)) / 150
    assert mean == pytest.approx(full, rel=0.03)


def test_autocast_does_not_reach_the_losses() -> None:
    out, x = scene(kind=torch.float32)
    ours = objective()
    plain = ours(out, x, NOW).total
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(out, x, NOW).total.item() == plain.item()


def plant(beta: float) -> float:
    """A model's rate in nats per second falls as beta rises."""
    return 3_000 * beta**-0.7


@pytest.mark.parametrize("target", [300.0, 30_000.0])
def test_the_controller_finds_the_beta_of_a_rate(target: float) -> None:
    out, x = scene()
    ours = objective(name="elbo", target_rate=target, control_gain=0.05)
    for _ in range(250):
        ours.commit(plant(math.exp(float(ours.log_control))))
    assert plant(math.exp(float(ours.log_control))) == pytest.approx(target, rel=0.02)
    assert ours(out, x, NOW).beta == pytest.approx((3_000 / target) ** (1 / 0.7), rel=0.05)


def test_only_a_committed_finite_rate_moves_the_controller() -> None:
    out, x = scene()
    ours = objective(target_rate=1.0)
    ours(out, x, NOW)
    ours.commit(math.nan)
    ours.commit(math.inf)
    assert ours.log_control == 0
    ours.commit(1e9)
    assert float(ours.log_control) == pytest.approx(0.01)  # the error counts for at most 1
    unmoved = objective()
    unmoved.commit(1e9)
    assert unmoved.log_control == 0


def test_the_controller_has_bounds() -> None:
    ours = objective(target_rate=1.0, control_gain=1.0)
    for _ in range(50):
        ours.commit(1e9)
    assert float(ours.log_control.exp()) == pytest.approx(1e6, rel=1e-4)


def test_the_state_goes_through_json_bit_for_bit() -> None:
    ours = objective(name="elbo", target_rate=3.0, learn_sigma=True, log_sigma=-1.2345678)
    for rate in (1.7, 4.4, 0.3):
        ours.commit(rate)
    again = objective(name="elbo", target_rate=3.0, learn_sigma=True)
    again.load_state_dict(json.loads(json.dumps(ours.state_dict())))
    assert torch.equal(again.log_control, ours.log_control)
    assert torch.equal(again.log_sigma, ours.log_sigma)


def test_a_learned_sigma_is_a_parameter_and_a_fixed_one_is_not() -> None:
    assert [name for name, _ in objective(learn_sigma=True).named_parameters()] == ["log_sigma"]
    assert not list(objective().parameters())


@pytest.mark.parametrize(("name", "level"), list(itertools.product(PLAIN, (0.0, 1.0))))
def test_silence_and_full_scale_have_finite_gradients(name: str, level: float) -> None:
    out, _ = scene(kind=torch.float32)
    x = torch.full_like(out.x_hat, level)
    for x_hat in (out.x_hat, x.clone().requires_grad_()):
        total = objective(name=name)(out._replace(x_hat=x_hat), x, NOW).total
        (gradient,) = torch.autograd.grad(total, x_hat)
        assert total.isfinite()
        assert gradient.isfinite().all()


def test_is_elbo_tells_likelihoods_from_distances() -> None:
    assert objective(name="elbo").is_elbo
    assert not objective().is_elbo


def test_spectral_terms_come_after_the_waveform() -> None:
    out, x = scene()
    at = {step: objective()(out, x, Progress(step, 100, 0)).weighted for step in (0, 25, 40)}
    for name in ("stft", "mel", "complex"):
        assert at[0][name] == 0
        assert at[25][name] > 0
    from_the_start = objective(spectral={})(out, x, Progress(40, 100, 0)).weighted
    assert at[40] == from_the_start
    assert at[0]["l1"] == at[40]["l1"] > 0
