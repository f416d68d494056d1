"""The meter in closed form; a real model driven into collapse on purpose, heard, and cured."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor, nn

from audiovae.bottlenecks import VQ, Gaussian, GaussianConfig, VQConfig
from audiovae.config import parse
from audiovae.errors import LatentError
from audiovae.models.base import Reconstruction
from audiovae.nn.noise import generators
from audiovae.training.diagnostics import CodesMeter, CollapseAlarm, LatentMeter
from audiovae.training.objective import Objective, ObjectiveConfig
from audiovae.training.schedules import Progress

HOP, RATE, DIMS = 16, 1_600, 4


class TinyVae(nn.Module):
    """A linear VAE on frames of 16 samples that starts near the point where nothing is encoded."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Conv1d(1, 16, HOP, stride=HOP)
        self.bottleneck = Gaussian(GaussianConfig(latent_dim=DIMS), 16, RATE / HOP)
        self.decoder = nn.ConvTranspose1d(DIMS, 1, HOP, stride=HOP)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.mul_(0.03)

    def forward(self, x: Tensor, step: int) -> Reconstruction:
        eps = generators(0, step, items=len(x))
        bottled = self.bottleneck(self.encoder(x), sample=True, generators=eps)
        return Reconstruction(self.decoder(bottled.z), *bottled)


def two_factors(step: int) -> Tensor:
    """Frames that are a random mix of two sines, and noise: two of the four dimensions are worth using."""
    generator = torch.Generator().manual_seed(step)
    t = torch.arange(HOP) / HOP * 2 * math.pi
    mix = torch.randn(16, 8, 2, generator=generator) @ torch.stack([t.sin(), (2 * t).cos()])
    return (mix + 0.3 * torch.randn(16, 8, HOP, generator=generator)).flatten(1).unsqueeze(1)


def train(steps: int = 160, **settings: object) -> tuple[LatentMeter, list[list[str]]]:
    """Train by the ELBO as the loop does; return the last meter and the alarms of each look."""
    model = TinyVae()
    config = parse(ObjectiveConfig, {"name": "elbo", "log_sigma": -1.0, **settings})
    objective = Objective(config, RATE)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    alarm, alarms, meter = CollapseAlarm(), [], LatentMeter(DIMS, RATE / HOP)
    for step in range(steps):
        x = two_factors(step)
        out = model(x, step)
        optimizer.zero_grad()
        weighed = objective(out, x, Progress(step, steps, 0))
        weighed.total.backward()
        optimizer.step()
        objective.commit(float(weighed.raw["kl"].detach()))
        if (step + 1) % 40 == 0:
            assert out.moments is not None
            meter = LatentMeter(DIMS, RATE / HOP)
            meter.update(*out.moments)
            alarms.append(alarm.update(step + 1, meter))
    return meter, alarms


BETA = 57.0  # two dimensions are still worth their price, but hard to find from the start


def test_a_high_beta_collapses_the_posterior_and_the_alarm_says_so() -> None:
    meter, alarms = train(beta={"high": BETA})
    assert meter.bits_per_second < 5
    assert alarms[0] == []  # one look is not enough
    (alarm,) = alarms[-1]
    assert alarm.startswith("posterior-collapse: ")
    assert "of 4 latent dimensions are used" in alarm
    assert "since step 40" in alarm
    assert "objective.free_bits" in alarm
    assert "objective.beta.kind" in alarm


@pytest.mark.parametrize(
    "cure",
    [
        {"beta": {"kind": "linear", "high": BETA, "stop": 0.8}},
        {"beta": {"kind": "cyclical", "high": BETA, "stop": 1.0, "cycles": 2}},
        {"beta": {"high": BETA}, "free_bits": 0.2},
    ],
    ids=["annealing", "cycles", "free bits"],
)
def test_annealing_and_free_bits_cure_it_at_the_same_beta(cure: dict[str, object]) -> None:
    meter, alarms = train(**cure)
    assert alarms[-1] == []
    assert meter.active_units >= 2
    assert meter.bits_per_second > 10


@pytest.mark.parametrize("target", [60.0, 180.0])
def test_the_controller_holds_the_rate_of_a_net_that_learns(target: float) -> None:
    """Nats per second, from a beta of 1 on: a tenth of what the net would choose by itself, and a third."""
    free, _ = train(steps=400)
    assert free.bits_per_second * math.log(2) > 300
    held, alarms = train(steps=400, target_rate=target, control_gain=0.1)
    assert held.bits_per_second * math.log(2) == pytest.approx(target, rel=0.1)
    assert alarms[-1] == []


def meter_of(active: int, dims: int = 40) -> LatentMeter:
    mu = torch.zeros(2, dims, 50)
    mu[:, :active] = torch.randn(2, active, 50, generator=torch.Generator().manual_seed(0))
    meter = LatentMeter(dims, 10.0)
    meter.update(mu, torch.zeros_like(mu))
    return meter


def test_the_meter_in_closed_form() -> None:
    mu = torch.tensor([1.0, -1.0, 1.0, -1.0]).view(1, 1, 4).expand(3, 2, 4).clone()
    mu[:, 1] *= 0.09  # variance 0.0081: not active
    meter = LatentMeter(2, 10.0)
    for item in mu:
        meter.update(item[None], torch.zeros(1, 2, 4))
    torch.testing.assert_close(meter.kl_per_dimension, torch.tensor([0.5, 0.00405]))
    assert meter.active_units == 1
    assert meter.bits_per_second == pytest.approx(5.0405 / math.log(2))
    assert meter.figures() == {
        "active_units": 1.0,
        "bits_per_second": pytest.approx(5.0405 / math.log(2)),
    }


def test_a_latent_that_shrinks_is_named() -> None:
    alarm = CollapseAlarm()
    assert alarm.update(100, meter_of(32)) == []
    assert alarm.update(200, meter_of(15)) == []
    (said,) = alarm.update(300, meter_of(14))
    assert said.startswith("shrinking-latent: 14 of 40 latent dimensions are used")
    assert "32 were, since step 200. Beta grows faster" in said
    assert alarm.update(400, meter_of(16)) == []


def test_an_alarm_starts_anew_after_a_good_look() -> None:
    alarm = CollapseAlarm()
    for step, active in ((1, 0), (2, 5), (3, 0)):
        assert alarm.update(step, meter_of(active)) == []
    assert "since step 3" in alarm.update(4, meter_of(0))[0]


def test_a_single_look_at_a_finished_model_is_enough_if_asked() -> None:
    assert CollapseAlarm(patience=1).update(0, meter_of(1))[0].startswith("posterior-collapse")


def test_the_alarms_memory_goes_through_json() -> None:
    alarm, again = CollapseAlarm(), CollapseAlarm()
    alarm.update(7, meter_of(0))
    again.load_state_dict(json.loads(json.dumps(alarm.state_dict())))
    assert again.update(8, meter_of(0)) == alarm.update(8, meter_of(0)) != []


def test_a_latent_of_little_variance_and_less_noise_is_used_and_no_collapse() -> None:
    generator = torch.Generator().manual_seed(0)
    mu = 0.05 * torch.randn(8, 4, 200, generator=generator)  # variance 0.0025: not active
    alarm = CollapseAlarm(patience=1)
    for log_sigma, used in ((-4.0, 4), (-1.0, 0)):  # sigma^2 of 0.0003 and 0.135
        meter = LatentMeter(4, 100.0)
        meter.update(mu, torch.full_like(mu, 2 * log_sigma))
        assert (meter.active_units, meter.used_units) == (0, used)
        assert bool(alarm.update(1, meter)) == (used == 0)


def test_the_codes_meter_in_closed_form() -> None:
    """One codebook in use by 1/2, 1/4, 1/4 (1.5 bits), one by a single code; over two batches and two seconds."""
    meter = CodesMeter([(8, 4)])
    first = torch.tensor([0, 0, 3, 5]).expand(2, 4)
    for _ in range(2):
        meter.update([torch.stack([first, torch.full((2, 4), 2)], dim=1)], 1.0)
    books = meter.codebooks
    assert [book.used for book in books] == [3, 1] and meter.used_units == 4
    assert [book.entropy for book in books] == pytest.approx([1.5, 0.0])
    assert meter.figures() == {
        "bits_per_second": pytest.approx(8 * (3 + 2)),
        "entropy_bits_per_second": pytest.approx(8 * 1.5),
        "perplexity": pytest.approx((2**1.5 + 1) / 2),
        "perplexity.0": pytest.approx(2**1.5),
        "perplexity.1": pytest.approx(1.0),
        "used_codes.0": 3.0,
        "used_codes.1": 1.0,
    }


def test_levels_have_their_own_frame_rates_and_names() -> None:
    meter = CodesMeter([(4,), (16, 16)])
    meter.update([torch.zeros(1, 1, 10).long(), torch.zeros(1, 2, 40).long()], 2.0)
    assert meter.bits_per_second == pytest.approx((10 * 2 + 2 * 40 * 4) / 2)
    assert [book.name for book in meter.codebooks] == ["0.0", "1.0", "1.1"]


def test_side_information_counts_into_the_rate_and_is_no_codebook() -> None:
    meter = CodesMeter([(32, 64), (4, 4)], side_levels=1)
    meter.update([torch.zeros(1, 2, 3).long(), torch.arange(8).view(1, 2, 4) % 4], 2.0)
    assert meter.bits_per_second == pytest.approx((3 * (5 + 6) + 4 * (2 + 2)) / 2)
    assert [book.name for book in meter.codebooks] == ["0", "1"]
    assert meter.symptoms(4) == {"codebook-collapse": None}


def test_a_meter_that_saw_no_code_says_so() -> None:
    with pytest.raises(LatentError, match="no code was seen; statistics need at least one frame"):
        CodesMeter([(4,)]).figures()


class TinyVqVae(nn.Module):
    """A linear VQ-VAE on frames of 16 samples, whose features begin far from random codes."""

    def __init__(self, **settings: object) -> None:
        super().__init__()
        torch.manual_seed(0)
        fixed = {"latent_dim": DIMS, "codebook_size": 64, "decay": 0.9}
        config = parse(VQConfig, fixed | settings)
        self.encoder = nn.Conv1d(1, DIMS, HOP, stride=HOP)
        nn.init.constant_(self.encoder.bias, 3.0)
        self.bottleneck = VQ(config, None, RATE / HOP)
        self.decoder = nn.ConvTranspose1d(DIMS, 1, HOP, stride=HOP)


def train_codes(**settings: object) -> tuple[CodesMeter, list[list[str]]]:
    """Train with the paper's loss; return the last meter and the alarms of each look."""
    model = TinyVqVae(**settings)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    alarm, alarms, meter = CollapseAlarm(), [], CodesMeter([(64,)])
    for step in range(120):
        x = two_factors(step)
        out = model.bottleneck(model.encoder(x), sample=True)
        loss = (model.decoder(out.z) - x).square().mean()
        loss = loss + out.terms.get("codebook", 0.0) + 0.25 * out.terms["commitment"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.bottleneck.commit(step)
        if step % 40 >= 35:
            meter.update(out.codes, x.numel() / RATE)
        if (step + 1) % 40 == 0:
            alarms.append(alarm.update(step + 1, meter))
            last, meter = meter, CodesMeter([(64,)])
    return last, alarms


BARE = {"kmeans_iterations": 0, "revive_below": 0.0}


def test_codes_far_from_the_frames_collapse_and_the_alarm_says_so() -> None:
    meter, alarms = train_codes(**BARE)
    assert meter.codebooks[0].perplexity < 4
    assert alarms[0] == []  # one look is not enough
    (alarm,) = alarms[-1]
    assert alarm.startswith(
        "codebook-collapse: 1 of 1 codebooks use few of their codes; codebook 0 "
    )
    assert "of 64 at perplexity" in alarm and "since step 40" in alarm
    assert "bottleneck.revive_below 0.1" in alarm and "bottleneck.kmeans_iterations 10" in alarm


@pytest.mark.parametrize(
    "cure",
    [{"revive_below": 0.0}, {"kmeans_iterations": 0}, {"update": "ema"}],
    ids=["k-means", "revival", "averages with both"],
)
def test_kmeans_and_revival_cure_it(cure: dict[str, object]) -> None:
    meter, alarms = train_codes(**cure)
    assert alarms[-1] == []
    assert meter.codebooks[0].perplexity > 8


def test_with_fewer_frames_than_codes_few_codes_are_no_collapse() -> None:
    alarm = CollapseAlarm(patience=1)
    meter = CodesMeter([(1024,)])
    meter.update([torch.arange(20).view(1, 1, 20)], 1.0)
    assert alarm.update(1, meter) == []
    meter.update([torch.zeros(1, 1, 2000).long()], 1.0)
    assert "codebook 0 20 of 1024 at perplexity 1." in alarm.update(2, meter)[0]
