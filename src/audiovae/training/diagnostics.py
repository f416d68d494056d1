"""Is the latent used?  What each dimension carries, and an alarm when the decoder stops listening.

    KL of a dimension   nats per frame, averaged over data and frames
    active unit         a dimension whose posterior mean varies: variance over the data above 0.01  (Burda 2016)
    rate                KL of all dimensions in bits per second: what a code of the latent would cost at best

Alarms, each on the second look in a row that shows it (one look is often the first minute of a training):

    posterior-collapse  fewer than one dimension in twenty is used, or the KL is below 0.05 bits a frame
    shrinking-latent    fewer than half as many dimensions are used as there once were

A dimension is used if it is active, or if its mean varies by more than its own noise, however little that is: so do
the latents of a net's first steps, which begin with a small sigma.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from audiovae.latents import LatentFit, LatentStatistics

ACTIVE_VARIANCE = 0.01
COLLAPSED_SHARE = 1 / 20  # of the dimensions
COLLAPSED_BITS = 0.05  # of KL in a frame
SHRUNK_SHARE = 1 / 2  # of the most dimensions that ever were used

ADVICE = {
    "posterior-collapse": (
        "The decoder ignores the latent. Lower objective.weights.kl or objective.beta.high; or let beta rise slowly "
        'with objective.beta.kind "linear" or "cyclical"; or set objective.free_bits to 0.1 or more; or hold a rate '
        "with objective.target_rate"
    ),
    "shrinking-latent": (
        "Beta grows faster than the latent can bear. Let it rise more slowly with a later objective.beta.stop, lower "
        "objective.beta.high, or set objective.free_bits to 0.1 or more"
    ),
}


class LatentMeter:
    """Gathers the moments of batches and says what the latent carries."""

    def __init__(self, latent_dim: int, frame_rate: float) -> None:
        self.latent_dim = latent_dim
        self.frame_rate = frame_rate  # Hz
        self._fit = LatentFit(latent_dim)

    def update(self, mu: Tensor, logvar: Tensor) -> None:
        """Count a batch in.  mu, logvar [B, D, F]."""
        self._fit.update(mu, logvar)

    def statistics(self) -> LatentStatistics:
        """Mean, covariances, KL of each dimension.  Raises LatentError if no batch was counted."""
        return self._fit.statistics()

    @property
    def kl_per_dimension(self) -> Tensor:
        """Nats per frame, [D]."""
        return self.statistics().kl

    @property
    def active_units(self) -> int:
        """Dimensions whose posterior mean varies by more than 0.01."""
        return int((self.statistics().mean_variance > ACTIVE_VARIANCE).sum())

    @property
    def used_units(self) -> int:
        """Active dimensions, and those whose posterior mean varies by more than the posterior itself."""
        statistics = self.statistics()
        noise = statistics.covariances[0].diagonal() - statistics.mean_variance  # mean of sigma^2
        return int((statistics.mean_variance > noise.clamp(max=ACTIVE_VARIANCE)).sum())

    @property
    def bits_per_second(self) -> float:
        """The KL of all dimensions as a rate."""
        return float(self.kl_per_dimension.sum()) * self.frame_rate / math.log(2)

    def figures(self) -> dict[str, float]:
        """What goes into a log line."""
        return {"active_units": float(self.active_units), "bits_per_second": self.bits_per_second}


class CollapseAlarm:
    """Looks at a meter now and then and names what is wrong, since when, and what to do."""

    def __init__(self, patience: int = 2) -> None:
        self.patience = patience  # looks in a row before an alarm
        self._since: dict[str, int] = {}  # alarm: the step that first showed it, while it lasts
        self._looks: dict[str, int] = {}
        self._most_used = 0

    def update(self, step: int, meter: LatentMeter) -> list[str]:
        """Take a look after a step; return the alarms that stand, each as "name: seen, since. What to do"."""
        used, bits = meter.used_units, meter.bits_per_second
        self._most_used = max(self._most_used, used)
        collapsed = (
            used < COLLAPSED_SHARE * meter.latent_dim or bits < COLLAPSED_BITS * meter.frame_rate
        )
        shrunk = used < SHRUNK_SHARE * self._most_used
        seen = (
            f"{used} of {meter.latent_dim} latent dimensions are used at {bits:.1f} bits per second"
        )
        standing = {
            "posterior-collapse": seen if collapsed else None,
            "shrinking-latent": f"{seen}, {self._most_used} were"
            if shrunk and not collapsed
            else None,
        }
        return [
            f"{name}: {what}, since step {self._since[name]}. {ADVICE[name]}"
            for name, what in standing.items()
            if self._lasts(name, what is not None, step)
        ]

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as JSON can hold it."""
        return {
            "since": dict(self._since),
            "looks": dict(self._looks),
            "most_used": self._most_used,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to what `state_dict` returned."""
        self._since, self._looks = dict(state["since"]), dict(state["looks"])
        self._most_used = state["most_used"]

    def _lasts(self, name: str, seen: bool, step: int) -> bool:
        if not seen:
            self._since.pop(name, None)
            self._looks.pop(name, None)
            return False
        self._since.setdefault(name, step)
        self._looks[name] = self._looks.get(name, 0) + 1
        return self._looks[name] >= self.patience
