"""The generator's half of a step: from the sounds to the weighed terms."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from audiovae.errors import ConfigError
from audiovae.models import Autoencoder, Reconstruction
from audiovae.training.adversarial import Adversary
from audiovae.training.objective import Objective, Weighed
from audiovae.training.schedules import Progress


class GeneratorHalf(nn.Module):
    """Model and objective as one module, so that one wrapper joins the gradients of both.

    The discriminators are no part of it: their weights get no gradient here.
    """

    def __init__(
        self, model: Autoencoder, objective: Objective, adversary: Adversary | None
    ) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.adversary = adversary

    def forward(
        self, x: Tensor, eps: Sequence[torch.Generator], at: Progress
    ) -> tuple[Weighed, Tensor]:
        """x [B, C, T] -> the weighed terms, and x_hat."""
        out = self._reconstruct(x, eps, at)
        out = out._replace(x_hat=out.x_hat.float())
        ramp = 0.0
        if self.adversary and self.adversary.turn(at).played:
            ramp = self.adversary.factor(at)
            out = out._replace(terms=out.terms | self.adversary.terms(out.x_hat, x, at))
        weighed: Weighed = self.objective(out, x, at, adversarial=ramp)
        if not weighed.total.requires_grad:
            raise ConfigError(
                f"at step {at.step} there is nothing to learn from: the discriminators have not begun. Set "
                "adversarial.start to 0, or give another term a weight"
            )
        return weighed, out.x_hat

    def _reconstruct(
        self, x: Tensor, eps: Sequence[torch.Generator], at: Progress
    ) -> Reconstruction:
        if not (self.adversary and self.adversary.freezes(at)):
            out: Reconstruction = self.model(x, sample=True, generators=eps)
            return out
        with torch.no_grad():
            bottled = self.model.encode(x, sample=True, generators=eps)
        return self.model.reconstruct(bottled, x, generators=eps)
