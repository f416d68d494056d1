"""The loss balancer: weights that say how much of the gradient each loss gets, whatever its scale (Défossez et al. 2022, sec. 3.4).

    g_i = d l_i / d x_hat,    n_i = running mean of the mean over the batch of ||g_i||
    gradient into the model = items / B * sum_i  total_norm * w_i / sum_j w_j * g_i / n_i

It reaches the losses that depend on the model through x_hat alone; the KL and the commitment are added outside of it.
The gradient of each item has the length total_norm, and a batch is their sum: AudioCraft's processes have 8 items each. So
that the balance does not change with the batch or the number of processes, it is here the mean over items times `items`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from audiovae.config import Config
from audiovae.training.distributed import ALONE, World

SMALLEST = 1e-12  # norm of a gradient that is divided by, at least


class BalancerConfig(Config):
    """How the running means of the norms are taken."""

    total_norm: float = Field(1.0, gt=0)  # of all balanced gradients of an item together, about
    items: int = Field(8, ge=1)  # how many items' gradients are summed, whatever the batch
    ema_decay: float = Field(0.999, ge=0, lt=1)


class Average(NamedTuple):
    """A running mean whose start does not weigh: sum / weight."""

    sum: float = 0.0
    weight: float = 0.0

    def with_value(self, value: float, decay: float) -> Average:
        """The average after one more value."""
        return Average(self.sum * decay + value, self.weight * decay + 1)

    @property
    def value(self) -> float:
        """The mean so far."""
        return self.sum / self.weight


class Balancer:
    """Balances the gradients of losses at x_hat; remembers the mean norm of each.

    What a step has seen counts from `commit` on; `discard` forgets it.
    """

    def __init__(self, config: BalancerConfig, world: World = ALONE) -> None:
        self.config, self.world = config, world
        self.averages: dict[str, Average] = {}
        self._seen: dict[str, Average] = {}

    def gradient(
        self, losses: Mapping[str, Tensor], weights: Mapping[str, float], x_hat: Tensor
    ) -> Tensor:
        """The balanced gradient at x_hat [B, C, T]; losses are scalars that depend on it."""
        gradients = {
            name: torch.autograd.grad(loss, x_hat, retain_graph=True)[0]
            for name, loss in losses.items()
        }
        norms = [float(g.flatten(1).norm(dim=1).mean()) for g in gradients.values()]
        for name, norm in zip(gradients, self.world.mean(norms), strict=True):
            before = self.averages.get(name, Average())
            self._seen[name] = before.with_value(norm, self.config.ema_decay)
        total = sum(weights[name] for name in gradients)
        balanced = torch.zeros_like(x_hat)
        scale = self.config.total_norm * self.config.items / len(x_hat) / max(total, SMALLEST)
        for name, gradient in gradients.items():
            norm = max(self._seen[name].value, SMALLEST)
            balanced.add_(gradient, alpha=scale * weights[name] / norm)
        return balanced

    def commit(self) -> None:
        """Count in what a step, proved finite, has seen."""
        self.averages |= self._seen
        self._seen = {}

    def discard(self) -> None:
        """Forget what a step has seen."""
        self._seen = {}

    @property
    def norms(self) -> dict[str, float]:
        """The mean norm of each loss's gradient so far."""
        return {name: average.value for name, average in self.averages.items()}

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as JSON can hold it."""
        return {name: list(average) for name, average in self.averages.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to what `state_dict` returned."""
        self.averages = {name: Average(*average) for name, average in state.items()}
