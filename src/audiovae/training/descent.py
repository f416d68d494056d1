"""How a gradient is descended: clip, learning rate, AdamW, and what a checkpoint keeps of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from audiovae.config import Config
from audiovae.training.schedules import Progress, warmup_cosine


class DescentConfig(Config):
    """AdamW (Loshchilov & Hutter 2019) on an averaged, clipped gradient."""

    learning_rate: float = Field(1e-3, gt=0)  # the highest; reached after the warm-up
    betas: tuple[float, float] = (0.8, 0.99)  # short memory, as GAN vocoders and Stable Audio use
    weight_decay: float = Field(0.01, ge=0)  # not on weights of one dimension: biases, most scales
    clip: float = Field(1.0, ge=0)  # largest norm of the whole gradient; 0: any
    schedule: Literal["cosine", "exponential", "inverse", "linear"] = "cosine"  # of the rate
    warmup: float = Field(0.02, ge=0, lt=1)  # share of the run over which the rate rises from zero
    final: float = Field(0.02, ge=0, le=1)  # share of the rate that cosine and linear end at
    linear_steps: int | None = Field(None, ge=1)  # linear: when it ends; None: with the run
    gamma: float = Field(0.999996, gt=0, le=1)  # exponential: the rate of a step over the last's
    inverse_steps: float = Field(200_000, gt=0)  # inverse: falls as 1 / sqrt(1 + step / this)
    slow_start: float = Field(0.999, ge=0, lt=1)  # inverse: rises as 1 - this^(step + 1)


class OptimizerConfig(DescentConfig):
    """The same for the weights that are the product, of which an average is kept."""

    ema_decay: float = Field(0.999, ge=0, lt=1)  # of the averaged weights; halves after 693 steps


class Descent:
    """The optimizer of some weights.

    AdamW that decays all weights but those of one dimension (biases, the scales of norms). A step is `clip`, `descend`; a gradient that is not
    wanted is forgotten.
    """

    def __init__(self, trained: nn.Module, config: DescentConfig) -> None:
        self.config = config
        self.weights = [p for p in trained.parameters() if p.requires_grad]
        matrices = [p for p in self.weights if p.ndim > 1]
        groups = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": [p for p in self.weights if p.ndim <= 1], "weight_decay": 0.0},
        ]
        # fused: one pass over memory, where torch's default on a CPU makes many
        self.optimizer = torch.optim.AdamW(
            groups, lr=config.learning_rate, betas=config.betas, fused=True
        )

    def clip(self) -> float:
        """Scale the gradient down to the largest norm allowed; return the norm it had."""
        norm = get_total_norm([p.grad for p in self.weights if p.grad is not None])
        if self.config.clip > 0:
            clip_grads_with_norm_(self.weights, self.config.clip, norm)
        return float(norm)

    def descend(self, at: Progress) -> float:
        """Make the update of a step; return its learning rate."""
        rate = self.config.learning_rate * rate_factor(self.config, at)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.forget()
        return rate

    def forget(self) -> None:
        """Drop the gradient."""
        self.optimizer.zero_grad()

    def tensors(self) -> dict[str, Tensor]:
        """The moments of each weight, named "number.moment"."""
        return {
            f"{number}.{name}": tensor
            for number, moments in self.optimizer.state_dict()["state"].items()
            for name, tensor in moments.items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go back to what `tensors` returned."""
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            number, _, name = key.partition(".")
            state.setdefault(int(number), {})[name] = tensor.clone()
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})


def rate_factor(config: DescentConfig, at: Progress) -> float:
    """The factor on the learning rate at a step.

    cosine       half a cosine down to `final`            exponential  gamma^step
    inverse      1 / sqrt(1 + step / inverse_steps)       linear       a line down to `final`

    after a rise over the share `warmup` of the run; inverse has a slow start of its own (stable-audio-tools' InverseLR).
    """
    match config.schedule:
        case "cosine":
            return warmup_cosine(at, config.warmup, config.final)
        case "inverse":
            started = 1 - config.slow_start ** (at.step + 1)
            return float(started / (1 + at.step / config.inverse_steps) ** 0.5)
        case "exponential":
            factor = config.gamma**at.step
        case "linear":
            stop = config.linear_steps or max(1, at.total_steps - 1)
            factor = 1 - (1 - config.final) * min(1.0, at.step / stop)
    rising = int(config.warmup * at.total_steps)
    return float(factor * min(1.0, (at.step + 1) / (rising + 1)))
