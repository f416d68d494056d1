"""Instability of a VAE-GAN is seen when it is there, and only then."""

from __future__ import annotations

import pytest
import torch

from audiovae.training.instability import InstabilityAlarm, Variety


def looked(
    loss: float, *, game: str = "hinge", judges: int = 1, variety: float = 1.0, norm: float = 1.0
) -> list[str]:
    """The names of the alarms on the second look at steady figures; the balance was 1 at the first."""
    alarm = InstabilityAlarm(game, judges)
    for step, size in ((10, 1.0), (20, norm), (30, norm)):
        for _ in range(5):
            alarm.step(loss)
        alarms = alarm.look(step, variety, {"stft": 1.0, "adversarial": size})
    return [alarm.partition(":")[0] for alarm in alarms]


@pytest.mark.parametrize(
    ("game", "chance"), [("hinge", 2.0), ("lsgan", 0.5), ("relativistic", 0.6931)]
)
@pytest.mark.parametrize("judges", [1, 8])
def test_a_discriminator_that_knows_all_or_nothing_is_named(
    game: str, chance: float, judges: int
) -> None:
    shares = {0.05: ["discriminator-overpowers"], 0.5: [], 1.0: ["discriminator-is-blind"]}
    for share, named in shares.items():
        assert looked(share * chance * judges, game=game, judges=judges) == named


def test_a_gradient_that_outgrows_the_others_is_named() -> None:
    assert looked(1.0, norm=1e4) == ["exploding-balance"]
    assert looked(1.0, norm=100.0) == []
    assert looked(1.0, norm=1e-4) == ["exploding-balance"]  # divided by, it amplifies noise


def test_an_alarm_waits_for_a_second_look_and_says_since_when_and_what_to_do() -> None:
    alarm = InstabilityAlarm("hinge", 1)
    alarm.step(0.01)
    assert alarm.look(100, 1.0, {}) == []
    alarm.step(0.01)
    (said,) = alarm.look(200, 1.0, {})
    assert said.startswith(
        "discriminator-overpowers: the discriminators' loss is 0.01, that of chance 2, since step 100."
    )
    assert "Lower adversarial.optimizer.learning_rate" in said
    other = InstabilityAlarm("hinge", 1)
    other.load_state_dict(alarm.state_dict())
    other.step(0.01)
    assert other.look(300, 1.0, {}) == [said]


def test_reconstructions_that_are_all_alike_have_no_variety() -> None:
    torch.manual_seed(0)
    t = torch.arange(4096) / 8_000
    pitches = torch.tensor([200.0, 400.0, 800.0, 1600.0])
    x = (0.3 * torch.sin(2 * torch.pi * pitches[:, None] * t))[:, None]  # [4, 1, T]

    def variety(x_hat: torch.Tensor) -> float:
        found = Variety()
        found.update(x[:2], x_hat[:2])
        found.update(x[2:], x_hat[2:])
        return found.value

    assert variety(x) == pytest.approx(1.0)
    assert variety(0.5 * x) == pytest.approx(1.0, abs=0.15)  # softer is no less various
    collapsed = variety(x[:1].expand_as(x))
    assert collapsed < 1e-6
    assert looked(1.0, variety=collapsed) == ["mode-collapse"]
    alone = Variety()
    alone.update(x[:1], x[:1])
    assert alone.value == 1.0
