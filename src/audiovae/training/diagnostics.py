"""Is the latent used?  What each dimension carries, and an alarm when the decoder stops listening.

    KL of a dimension   nats per frame, averaged over data and frames
    active unit         a dimension whose posterior mean varies: variance over the data above 0.01  (Burda 2016)
    rate                KL of all dimensions in bits per second: what a code of the latent would cost at best

For codes, of each codebook:

    used codes          those that were seen at all
    entropy             -sum p log2 p of how often each was seen, in bits; perplexity 2^entropy: as many equally used codes
    rate                bits per second of packed codes (log2 V each), and of an entropy coder that knows p

Alarms, each on the second look in a row that shows it (one look is often the first minute of a training):

    posterior-collapse  fewer than one dimension in twenty is used, or the KL is below 0.05 bits a frame
    shrinking-latent    fewer than half as many dimensions are used as there once were
    codebook-collapse   a codebook's perplexity is below a twentieth of what it could be

A dimension is used if it is active, or if its mean varies by more than its own noise, however little that is: so do
the latents of a net's first steps, which begin with a small sigma.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from audiovae.errors import LatentError
from audiovae.latents import LatentFit, LatentStatistics
from audiovae.training.alarm import Alarm

ACTIVE_VARIANCE = 0.01
COLLAPSED_SHARE = 1 / 20  # of the dimensions, or of a codebook's codes
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
    "codebook-collapse": (
        "Nearly all frames choose the same few codes. Let codes begin and live where the frames are: "
        "bottleneck.kmeans_iterations 10, bottleneck.revive_below 0.1 and bottleneck.update 'ema'; search in few "
        "dimensions with bottleneck.codebook_dim 8 and bottleneck.normalise; or take a smaller bottleneck.codebook_size"
    ),
}


class Meter(Protocol):
    """What the alarm and the log know of a meter."""

    @property
    def used_units(self) -> int:
        """How much of the latent is used."""

    def symptoms(self, most_used: int) -> dict[str, str | None]:
        """For each alarm of this kind of latent what shows it, or None; `most_used` is the most there ever was."""

    def figures(self) -> dict[str, float]:
        """What goes into a log line."""

    def statistics(self) -> LatentStatistics | None:
        """What a checkpoint stores of the latent, if it can be drawn from."""


class LatentMeter:
    """Gathers the moments of batches and says what the latent carries."""

    def __init__(self, latent_dim: int, frame_rate: float) -> None:
        self.latent_dim = latent_dim
        self.frame_rate = frame_rate  # Hz
        self._fit = LatentFit(latent_dim)

    def update(self, mu: Tensor, logvar: Tensor, mask: Tensor | None = None) -> None:
        """Count a batch in.  mu, logvar [B, D, F]; mask [B, F] is False in the frames that an item lacks."""
        self._fit.update(mu, logvar, mask)

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

    def symptoms(self, most_used: int) -> dict[str, str | None]:
        """Whether the latent has collapsed, or is on its way."""
        used, bits = self.used_units, self.bits_per_second
        collapsed = (
            used < COLLAPSED_SHARE * self.latent_dim or bits < COLLAPSED_BITS * self.frame_rate
        )
        shrunk = used < SHRUNK_SHARE * most_used and not collapsed
        seen = (
            f"{used} of {self.latent_dim} latent dimensions are used at {bits:.1f} bits per second"
        )
        return {
            "posterior-collapse": seen if collapsed else None,
            "shrinking-latent": f"{seen}, {most_used} were" if shrunk else None,
        }


class CodebookUse(NamedTuple):
    """How a codebook was used."""

    name: str  # "0", "1", ..., with several levels "0.0", "0.1", ..., coarse first
    counts: Tensor  # [V], how often each code was seen, float64

    @property
    def seen(self) -> int:
        """Codes that were read."""
        return int(self.counts.sum())

    @property
    def used(self) -> int:
        """Different ones among them."""
        return int((self.counts > 0).sum())

    @property
    def entropy(self) -> float:
        """Bits of a code."""
        shares = self.counts / self.counts.sum()
        return float(torch.special.entr(shares).sum()) / math.log(2)

    @property
    def perplexity(self) -> float:
        """How many codes, each as frequent as the others, would have this entropy."""
        return float(2.0**self.entropy)

    @property
    def collapsed(self) -> bool:
        """Whether few codes are used of those that could have been seen."""
        possible = min(len(self.counts), self.seen)
        return self.perplexity < 1 + COLLAPSED_SHARE * (possible - 1)


class CodesMeter:
    """Counts the codes of batches and says how the codebooks are used."""

    def __init__(self, codebook_sizes: Sequence[Sequence[int]], side_levels: int = 0) -> None:
        """Sizes of the codebooks of each level, coarse first; the first `side_levels` only count into the rate."""
        self._side_levels = side_levels
        self._counts = [
            [torch.zeros(size, dtype=torch.float64) for size in sizes] for sizes in codebook_sizes
        ]
        self._seconds = 0.0

    def update(self, codes: Sequence[Tensor], seconds: float) -> None:
        """Count a batch in: codes [B, K, F] of each level, of so many seconds of sound in all items together."""
        for chosen, counts in zip(codes, self._counts, strict=True):
            for found, count in zip(chosen.unbind(1), counts, strict=True):
                count += found.flatten().bincount(minlength=len(count)).cpu()
        self._seconds += seconds

    @property
    def codebooks(self) -> list[CodebookUse]:
        """How each codebook was used.  Raises LatentError if no batch was counted."""
        return self._uses(self._counts[self._side_levels :])

    @property
    def used_units(self) -> int:
        """Codes in use, of all codebooks together."""
        return sum(book.used for book in self.codebooks)

    @property
    def bits_per_second(self) -> float:
        """The rate of packed codes."""
        books = self._uses(self._counts)
        bits = sum(book.seen * math.log2(len(book.counts)) for book in books)
        return bits / self._seconds

    @property
    def entropy_bits_per_second(self) -> float:
        """The rate behind an entropy coder that knows how frequent each code is, and no more."""
        return sum(book.seen * book.entropy for book in self._uses(self._counts)) / self._seconds

    def _uses(self, levels: Sequence[Sequence[Tensor]]) -> list[CodebookUse]:
        if self._seconds == 0:
            raise LatentError("no code was seen; statistics need at least one frame")
        several = len(levels) > 1
        return [
            CodebookUse(f"{level}.{number}" if several else str(number), counts)
            for level, books in enumerate(levels)
            for number, counts in enumerate(books)
        ]

    def statistics(self) -> None:
        """Nothing that a latent could be drawn from."""

    def figures(self) -> dict[str, float]:
        """What goes into a log line."""
        books = self.codebooks
        return {
            "bits_per_second": self.bits_per_second,
            "entropy_bits_per_second": self.entropy_bits_per_second,
            "perplexity": sum(book.perplexity for book in books) / len(books),
            **{f"perplexity.{book.name}": book.perplexity for book in books},
            **{f"used_codes.{book.name}": float(book.used) for book in books},
        }

    def symptoms(self, most_used: int) -> dict[str, str | None]:
        """Whether a codebook has collapsed."""
        fallen = [book for book in self.codebooks if book.collapsed]
        if not fallen:
            return {"codebook-collapse": None}
        worst = min(fallen, key=lambda book: book.perplexity / len(book.counts))
        return {
            "codebook-collapse": (
                f"{len(fallen)} of {len(self.codebooks)} codebooks use few of their codes; codebook {worst.name} "
                f"{worst.used} of {len(worst.counts)} at perplexity {worst.perplexity:.1f}"
            )
        }


class CollapseAlarm:
    """Looks at a meter now and then and names what is wrong, since when, and what to do."""

    def __init__(self, patience: int = 2) -> None:
        self._alarm = Alarm(patience)
        self._most_used = 0

    def update(self, step: int | None, meter: Meter) -> list[str]:
        """Take a look after a step (None: at a finished model); return the alarms that stand, each as "name: seen, since. What to do"."""
        self._most_used = max(self._most_used, meter.used_units)
        return self._alarm.look(step, meter.symptoms(self._most_used), ADVICE)

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as JSON can hold it."""
        return {**self._alarm.state_dict(), "most_used": self._most_used}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to what `state_dict` returned."""
        self._alarm.load_state_dict(state)
        self._most_used = state["most_used"]
