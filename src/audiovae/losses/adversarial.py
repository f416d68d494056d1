"""Losses between a generator and its discriminators, of the verdicts of all judges.

           discriminator                                   generator
    hinge  max(0, 1 - D(x)) + max(0, 1 + D(x_hat))         -D(x_hat)                            (Lim & Ye 2017)
    lsgan  (D(x) - 1)^2 + D(x_hat)^2                       (D(x_hat) - 1)^2                     (Mao et al. 2017)
    relativistic  softplus(D(x_hat) - D(x))                softplus(D(x) - D(x_hat))            (Jolicoeur-Martineau 2019)

Each is a mean over the places that a judge looks at, then a mean or a sum over judges. Feature matching is the L1
distance between what the judges' layers saw of both, absolute, or relative to the size of what they saw of x.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from audiovae.losses.discriminators.base import Verdict

AdversarialLoss = Literal["hinge", "lsgan", "relativistic"]
Reduction = Literal["mean", "sum"]
SMALLEST = 1e-7  # mean magnitude that a relative feature distance divides by, at least


class Sides(NamedTuple):
    """The losses of both sides, functions of the logits (real, fake) of one judge, and what chance gives."""

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor], Tensor]
    chance: float  # the discriminator's, of one that says the same of everything


ADVERSARIAL_LOSSES: dict[str, Sides] = {
    "hinge": Sides(
        lambda real, fake: (1 - real).relu().mean() + (1 + fake).relu().mean(),
        lambda real, fake: -fake.mean(),
        2.0,
    ),
    "lsgan": Sides(
        lambda real, fake: (real - 1).square().mean() + fake.square().mean(),
        lambda real, fake: (fake - 1).square().mean(),
        0.5,
    ),
    "relativistic": Sides(
        lambda real, fake: softplus(fake - real).mean(),
        lambda real, fake: softplus(real - fake).mean(),
        math.log(2),
    ),
}


def discriminator_loss(
    real: Sequence[Verdict],
    fake: Sequence[Verdict],
    loss: AdversarialLoss,
    reduction: Reduction = "mean",
) -> Tensor:
    """What the discriminators descend: to tell x from x_hat."""
    side = ADVERSARIAL_LOSSES[loss].discriminator
    return _reduced(
        [side(r.logits.float(), f.logits.float()) for r, f in _pairs(real, fake)], reduction
    )


def generator_loss(
    real: Sequence[Verdict],
    fake: Sequence[Verdict],
    loss: AdversarialLoss,
    reduction: Reduction = "mean",
) -> Tensor:
    """What the generator descends: to have x_hat taken for x."""
    side = ADVERSARIAL_LOSSES[loss].generator
    return _reduced(
        [side(r.logits.float(), f.logits.float()) for r, f in _pairs(real, fake)], reduction
    )


def feature_matching(
    real: Sequence[Verdict],
    fake: Sequence[Verdict],
    *,
    relative: bool = False,
    feature_reduction: Reduction = "mean",
    reduction: Reduction = "mean",
    skip: int = 0,
) -> Tensor:
    """The distance between what the layers of the judges saw of x and of x_hat; `skip` leaves out each judge's first.

    Gradients reach what was seen of x_hat only.
    """

    def distance(r: Tensor, f: Tensor) -> Tensor:
        target = r.detach().to(f.dtype)
        difference = (f - target).abs().mean(dtype=torch.float32)
        if not relative:
            return difference
        return difference / target.abs().mean(dtype=torch.float32).clamp(min=SMALLEST)

    of_judges = [
        _reduced(
            [distance(*pair) for pair in zip(r.features[skip:], f.features[skip:], strict=True)],
            feature_reduction,
        )
        for r, f in _pairs(real, fake)
    ]
    return _reduced(of_judges, reduction)


def _pairs(real: Sequence[Verdict], fake: Sequence[Verdict]) -> list[tuple[Verdict, Verdict]]:
    return list(zip(real, fake, strict=True))


def _reduced(losses: Sequence[Tensor], reduction: Reduction) -> Tensor:
    stacked = torch.stack(list(losses))
    return stacked.mean() if reduction == "mean" else stacked.sum()
