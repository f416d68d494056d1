"""The discriminators' side of a VAE-GAN: their half of a step, and the terms that they give the generator's.

    generator half        x_hat = model(x);  adversarial(D(x_hat)), features(D(x_hat), D(x)) join the objective's terms
    discriminator half    D descends its loss on x and the same x_hat, detached

Both halves look at the weights as the step found them, so that micro-batches and processes add up exactly; where the
published trainings update the discriminators first, the generator here meets them one update later.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from audiovae.config import Config
from audiovae.errors import ConfigError
from audiovae.losses.adversarial import (
    AdversarialLoss,
    Reduction,
    discriminator_loss,
    feature_matching,
    generator_loss,
)
from audiovae.losses.discriminators import AnyDiscriminatorConfig, Discriminators, PatchesConfig
from audiovae.nn.noise import mix
from audiovae.training.balancer import Balancer, BalancerConfig
from audiovae.training.descent import Descent, DescentConfig
from audiovae.training.device import autocast
from audiovae.training.distributed import ALONE, World, synchronised
from audiovae.training.instability import InstabilityAlarm
from audiovae.training.schedules import Progress

WEIGHTS, WINDOW = 5, 6  # streams of random numbers: the discriminators' start, the window of a step


class AdversarialConfig(Config):
    """Who judges, from when on, and what is made of it; the weights are the objective's, `adversarial` and `features`."""

    discriminators: tuple[AnyDiscriminatorConfig, ...] = Field((PatchesConfig(),), min_length=1)
    normalise: bool = False  # let them hear every sound without its mean and at one peak
    loss: AdversarialLoss = "hinge"
    reduction: Reduction = "mean"  # of the losses of all sub-discriminators
    relative_features: bool = False  # feature distances relative to the size of the feature
    feature_reduction: Reduction = "mean"  # of the layers of a sub-discriminator
    skip_features: int = Field(0, ge=0)  # first layers of each judge that are not compared
    start: float = Field(0.3, ge=0)  # when the discriminators begin: a share of the run, or a step
    warmup: float = Field(0.1, ge=0)  # over which both weights rise from 0 after that; 0: at once
    unit: Literal["share", "steps"] = "share"  # of start and warmup
    every: int = Field(1, ge=1)  # steps between two updates of the discriminators
    alternate: bool = False  # their steps leave the generator as it is
    freeze_encoder: bool = False  # from `start` on only the decoder learns (RAVE's second phase)
    window_seconds: float | None = Field(None, gt=0)  # of a crop for them, at random; None: all
    optimizer: DescentConfig = DescentConfig(learning_rate=3e-4, clip=10.0)
    balancer: BalancerConfig | None = None  # None: weights are factors, not shares of the gradient

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.alternate and self.every < 2:
            raise ValueError(
                f"alternate leaves the generator no step of its own: every must be at least 2, got {self.every}"
            )
        if self.unit == "share" and self.start + self.warmup > 1:
            raise ValueError(
                f"start and warmup are shares of the run, together up to 1, got {self.start:g} and {self.warmup:g}; for "
                'steps set unit to "steps"'
            )
        return self

    def first_step(self, total_steps: int) -> int:
        """The step with which the discriminators begin."""
        return math.ceil(self.start * (total_steps if self.unit == "share" else 1))

    def factor(self, at: Progress) -> float:
        """Of both weights."""
        done = at.step - self.first_step(at.total_steps)
        length = self.warmup * (at.total_steps if self.unit == "share" else 1)
        return min(1.0, max(0.0, done / length)) if length > 0 else float(done >= 0)

    def begins(self, at: Progress) -> bool:
        """Whether the discriminators play at this step."""
        return at.step >= self.first_step(at.total_steps)


class Turn(NamedTuple):
    """Whose update a step is."""

    generator: bool = True
    discriminator: bool = False
    played: bool = False  # whether the discriminators' terms join the objective


class Adversary:
    """The discriminators, their optimizer, and what they did last."""

    def __init__(
        self,
        config: AdversarialConfig,
        *,
        channels: int,
        sample_rate: int,
        seed: int,
        device: torch.device,
        low_precision: bool,
        world: World = ALONE,
    ) -> None:
        self.config, self.device, self.low_precision = config, device, low_precision
        self.sample_rate = sample_rate
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(seed, WEIGHTS))
            net = Discriminators(config.discriminators, channels, normalise=config.normalise)
        self.net = net.to(device).train()
        self.game = world.wrap(_Game(self.net, config), device)
        self.descent = Descent(self.net, config.optimizer)
        self.balancer = Balancer(config.balancer, world) if config.balancer else None
        self.world = world
        self.alarm = InstabilityAlarm(config.loss, self._judges(channels))
        self.figures: dict[str, float] = {}  # of the discriminators' last step

    def _judges(self, channels: int) -> int:
        """How many losses are summed up; checks on silence that there is something to compare in each."""
        with torch.no_grad():
            verdicts = self.net(torch.zeros(1, channels, 4096, device=self.device))
        layers = min(len(verdict.features) for verdict in verdicts)
        if layers <= self.config.skip_features:
            raise ConfigError(
                f"adversarial.skip_features {self.config.skip_features} leaves no layer to compare: the shallowest "
                f"discriminator has {layers}"
            )
        return 1 if self.config.reduction == "mean" else len(verdicts)

    def turn(self, at: Progress) -> Turn:
        """Whose update this step is."""
        if not self.config.begins(at):
            return Turn()
        theirs = at.step % self.config.every == 0
        return Turn(
            generator=not (theirs and self.config.alternate), discriminator=theirs, played=True
        )

    def freezes(self, at: Progress) -> bool:
        """Whether the encoder stands still in this step."""
        return self.config.freeze_encoder and self.config.begins(at)

    def factor(self, at: Progress) -> float:
        """Of the weights of both terms."""
        return self.config.factor(at)

    def terms(self, x_hat: Tensor, x: Tensor, at: Progress) -> dict[str, Tensor]:
        """The generator's half, unweighted scalars.  x_hat, x [B, C, T]; the discriminators get no gradient."""
        x_hat, x = self._window(x_hat, at), self._window(x, at)
        config = self.config
        with _frozen(self.net), autocast(self.device, self.low_precision):
            with torch.no_grad():
                real = self.net(x)
            fake = self.net(x_hat)
        return {
            "adversarial": generator_loss(real, fake, config.loss, config.reduction),
            "features": feature_matching(
                real,
                fake,
                relative=config.relative_features,
                feature_reduction=config.feature_reduction,
                reduction=config.reduction,
                skip=config.skip_features,
            ),
        }

    def learn(self, pairs: Sequence[tuple[Tensor, Tensor]], at: Progress) -> dict[str, float]:
        """The discriminators' half: leave their gradient, the mean over (x, x_hat) of all micro-batches; return figures."""
        loss = 0.0
        for number, (x, x_hat) in enumerate(pairs, start=1):
            with synchronised(self.game, number == len(pairs)):
                with autocast(self.device, self.low_precision):
                    part = self.game(self._window(x, at), self._window(x_hat, at))
                (part / len(pairs)).backward()
            loss += float(part.detach()) / len(pairs)
        (loss,) = self.world.mean([loss])
        return {"discriminator": loss, "discriminator_norm": self.descent.clip()}

    def commit(self, figures: dict[str, float], at: Progress) -> None:
        """Make the discriminators' update, if the step, proved finite, has one; `figures` are what `learn` returned."""
        if figures:
            self.descent.descend(at)
            self.alarm.step(figures["discriminator"])
            self.figures = figures
        if self.balancer:
            self.balancer.commit()

    def discard(self) -> None:
        """Forget what a step has seen."""
        self.descent.forget()
        if self.balancer:
            self.balancer.discard()

    def look(self, step: int, variety: float) -> list[str]:
        """The alarms that stand after a step; `variety` is that of the reconstructions."""
        return self.alarm.look(step, variety, self.balancer.norms if self.balancer else {})

    def tensors(self) -> dict[str, Tensor]:
        """Weights and moments, for a checkpoint."""
        weights = {f"net.{name}": t for name, t in self.net.state_dict().items()}
        moments = {f"descent.{name}": t for name, t in self.descent.tensors().items()}
        return weights | moments

    def state_dict(self) -> dict[str, Any]:
        """What balancer and alarm remember, as JSON can hold it."""
        balancer = {"balancer": self.balancer.state_dict()} if self.balancer else {}
        return {"alarm": self.alarm.state_dict(), "figures": self.figures, **balancer}

    def load(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Go back to what `tensors` and `state_dict` returned."""
        self.net.load_state_dict(_below("net.", tensors))
        self.descent.load(_below("descent.", tensors))
        self.alarm.load_state_dict(values["alarm"])
        self.figures = dict(values["figures"])
        if self.balancer:
            self.balancer.load_state_dict(values["balancer"])

    def _window(self, x: Tensor, at: Progress) -> Tensor:
        """The crop of this step, the same of every sound."""
        if self.config.window_seconds is None:
            return x
        length = round(self.config.window_seconds * self.sample_rate)
        room = max(0, x.shape[-1] - length)
        first = random.Random(mix(at.seed, WINDOW, at.step)).randint(0, room)
        return x[..., first : first + length]


class _Game(nn.Module):
    """The discriminators' loss as one module, so that a wrapper joins its gradients."""

    def __init__(self, net: Discriminators, config: AdversarialConfig) -> None:
        super().__init__()
        self.net, self.config = net, config

    def forward(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """x, x_hat [B, C, T] -> the loss."""
        real, fake = self.net(x), self.net(x_hat.detach())
        return discriminator_loss(real, fake, self.config.loss, self.config.reduction)


@contextmanager
def _frozen(net: nn.Module) -> Iterator[None]:
    """Let gradients pass through a net and none stay in it."""
    net.requires_grad_(False)
    try:
        yield
    finally:
        net.requires_grad_(True)


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
