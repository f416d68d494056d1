"""What goes wrong between a generator and its discriminators, seen and named.

Between two looks the discriminators' loss and the norms of the balanced gradients are averaged. Chance is the loss of a
discriminator that says the same of everything: hinge 2, lsgan 1/2, relativistic log 2.

    discriminator-overpowers  its loss is below a tenth of chance: it knows every x_hat, and teaches nothing any more
    discriminator-is-blind    its loss is at chance: it tells nothing apart
    exploding-balance         the mean norm of a balanced gradient is a thousand times, or a thousandth of, what it was at
                              the first look; the balance divides by it, so a vanishing one is amplified noise
    mode-collapse             the reconstructions of different sounds are alike: their spectra vary by less than a tenth
                              of what those of the sounds do
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from audiovae.audio.spectra import stft
from audiovae.losses.adversarial import ADVERSARIAL_LOSSES
from audiovae.training.alarm import Alarm

OVERPOWERS, BLIND = 0.1, 0.99  # shares of chance
EXPLODES = 1e3
ALIKE = 0.1  # share of the variance
N_FFT = 512

ADVICE = {
    "discriminator-overpowers": (
        "Lower adversarial.optimizer.learning_rate and go on with --resume; or in a new run raise adversarial.every, let "
        "it begin later with a higher adversarial.start, or take smaller adversarial.discriminators"
    ),
    "discriminator-is-blind": (
        "Raise adversarial.optimizer.learning_rate, or in a new run take wider adversarial.discriminators; a generator that is "
        "perfect looks the same, but then the other figures say so"
    ),
    "exploding-balance": (
        "One loss is out of all proportion. Lower the learning rate of the side that drifts, set "
        "adversarial.loss to 'lsgan', or leave the balancer out"
    ),
    "mode-collapse": (
        "The decoder answers everything alike. Lower objective.weights.adversarial, raise the weights of the "
        "reconstruction, and look for a collapsed latent first"
    ),
}


class InstabilityAlarm:
    """Gathers figures of steps and of a validation, and names what is wrong."""

    def __init__(self, loss: str, judges: int, patience: int = 2) -> None:
        """`judges` that the discriminators' loss is the sum of; 1 for a mean."""
        self.chance = ADVERSARIAL_LOSSES[loss].chance * judges
        self._alarm = Alarm(patience)
        self._loss, self._steps = 0.0, 0  # since the last look
        self._first_norms: dict[str, float] = {}

    def step(self, loss: float) -> None:
        """Count the discriminators' loss of a step in."""
        self._loss += loss
        self._steps += 1

    def look(self, step: int, variety: float, norms: Mapping[str, float]) -> list[str]:
        """Take a look after a step; return the alarms that stand.  `norms` are those of a balancer, by loss."""
        symptoms = self._of_the_game() | {
            "exploding-balance": self._of_the_balance(norms),
            "mode-collapse": (
                f"the spectra of reconstructions vary {variety:.3f} times as much as those of their sounds"
                if variety < ALIKE
                else None
            ),
        }
        self._loss, self._steps = 0.0, 0
        return self._alarm.look(step, symptoms, ADVICE)

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as JSON can hold it."""
        return {
            **self._alarm.state_dict(),
            "loss": self._loss,
            "steps": self._steps,
            "first_norms": dict(self._first_norms),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to what `state_dict` returned."""
        self._alarm.load_state_dict(state)
        self._loss, self._steps = state["loss"], state["steps"]
        self._first_norms = dict(state["first_norms"])

    def _of_the_game(self) -> dict[str, str | None]:
        overpowers = blind = None
        if self._steps:
            mean = self._loss / self._steps
            said = f"the discriminators' loss is {mean:.3g}, that of chance {self.chance:.3g}"
            overpowers = said if mean < OVERPOWERS * self.chance else None
            blind = said if mean > BLIND * self.chance else None
        return {"discriminator-overpowers": overpowers, "discriminator-is-blind": blind}

    def _of_the_balance(self, norms: Mapping[str, float]) -> str | None:
        for name, norm in norms.items():
            change = norm / max(self._first_norms.setdefault(name, norm), 1e-12)
            if change > EXPLODES:
                return f"the gradient of '{name}' is {change:.3g} times what it was"
            if change < 1 / EXPLODES:
                return f"the gradient of '{name}' is {change:.3g} times what it was, and is amplified as much"
        return None


class Variety:
    """How much the mean spectra of different reconstructions vary, over how much those of their sounds do."""

    def __init__(self) -> None:
        self._spectra: list[tuple[Tensor, Tensor]] = []

    def update(self, x: Tensor, x_hat: Tensor) -> None:
        """Count some sounds in.  x, x_hat [B, C, T]."""
        self._spectra.append((_mean_spectra(x), _mean_spectra(x_hat)))

    @property
    def value(self) -> float:
        """The ratio of the variances over sounds; 1 where there are no two sounds that differ."""
        x, x_hat = (torch.cat(side) for side in zip(*self._spectra, strict=True))
        there = float(x.var(0, correction=0).mean())
        return float(x_hat.var(0, correction=0).mean()) / there if there > 1e-6 else 1.0


def _mean_spectra(x: Tensor) -> Tensor:
    """x [B, C, T] -> log power over time and channels, [B, N]."""
    power = stft(x.float().flatten(0, 1), N_FFT).abs().square().mean(1)  # [B C, N]
    spectra: Tensor = power.unflatten(0, x.shape[:2]).mean(1)  # [B, N]
    return spectra.clamp(min=1e-8).log10()
