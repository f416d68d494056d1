"""Adversarial losses: closed forms on small tensors, and who gets a gradient."""

from __future__ import annotations

import math

import pytest
import torch

from audiovae.losses.adversarial import (
    ADVERSARIAL_LOSSES,
    discriminator_loss,
    feature_matching,
    generator_loss,
)
from audiovae.losses.discriminators import Verdict


def verdict(*logits: float, features: tuple[list[float], ...] = ()) -> Verdict:
    return Verdict(torch.tensor(logits), tuple(torch.tensor(f) for f in features))


REAL = [verdict(2.0, 0.5), verdict(-1.0)]
FAKE = [verdict(-3.0, 0.0), verdict(0.25)]


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


@pytest.mark.parametrize(
    ("name", "first", "second"),  # of each judge: (discriminator's, generator's), by hand
    [
        ("hinge", (0.25 + 0.5, 1.5), (2.0 + 1.25, -0.25)),
        ("lsgan", ((1 + 0.25) / 2 + 9 / 2, (16 + 1) / 2), (4 + 0.0625, 0.5625)),
        (
            "relativistic",
            ((softplus(-5) + softplus(-0.5)) / 2, (softplus(5) + softplus(0.5)) / 2),
            (softplus(1.25), softplus(-1.25)),
        ),
    ],
)
def test_the_losses_are_their_closed_forms(
    name: str, first: tuple[float, float], second: tuple[float, float]
) -> None:
    for reduction, share in (("mean", 0.5), ("sum", 1.0)):
        pairs = zip((discriminator_loss, generator_loss), first, second, strict=True)
        for loss, one, two in pairs:
            value = float(loss(REAL, FAKE, name, reduction))  # type: ignore[arg-type]
            assert value == pytest.approx(share * (one + two), rel=1e-6)


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_descending_the_losses_parts_and_joins_the_logits(name: str) -> None:
    """The discriminator raises D(x) and lowers D(x_hat); the generator raises D(x_hat)."""
    real, fake = (torch.full((3,), 0.5, requires_grad=True) for _ in range(2))
    side = ADVERSARIAL_LOSSES[name]
    up, down = torch.autograd.grad(side.discriminator(real, fake), (real, fake))
    assert (up < 0).all() and (down > 0).all()
    (joins,) = torch.autograd.grad(side.generator(real.detach(), fake), fake)
    assert (joins < 0).all()


def test_feature_distances_are_means_or_sums_absolute_or_relative() -> None:
    real = [
        verdict(0.0, features=([1.0, -3.0], [4.0])),
        verdict(0.0, features=([0.5], [10.0])),
    ]
    fake = [
        verdict(0.0, features=([0.0, -1.0], [1.0])),
        verdict(0.0, features=([0.0], [5.0])),
    ]
    # layers' absolute distances 1.5, 3 | 0.5, 5; over the size of the real ones 0.75, 0.75 | 1, 0.5
    assert float(feature_matching(real, fake)) == pytest.approx((2.25 + 2.75) / 2)
    summed = feature_matching(real, fake, feature_reduction="sum", reduction="sum")
    assert float(summed) == pytest.approx(10.0)
    assert float(feature_matching(real, fake, relative=True)) == pytest.approx(0.75)
    skipped = feature_matching(real, fake, skip=1, reduction="sum")
    assert float(skipped) == pytest.approx(3 + 5)


def test_feature_matching_moves_what_was_seen_of_the_fake_alone() -> None:
    real, fake = (torch.randn(4, requires_grad=True) for _ in range(2))
    pair = [Verdict(real, (real,))], [Verdict(fake, (fake,))]
    feature_matching(*pair).backward()
    assert real.grad is None
    assert fake.grad is not None
    silent = [Verdict(real, (torch.zeros(4),))]  # nothing was seen of x: no division by zero
    assert feature_matching(silent, pair[1], relative=True).isfinite()
