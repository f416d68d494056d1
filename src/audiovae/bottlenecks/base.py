"""What a bottleneck is: features in, a latent and what it costs out.

forward      h [B, W, F] -> Bottled
from_codes   codes, any number of the coarse ones -> z; discrete bottlenecks only
begin        place what a fresh bottleneck places by looking at data (k-means), on the forward passes since the last call
commit       take over what the step has seen (codebook averages), once its loss and gradients proved finite
discard      forget what the step has seen
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from audiovae.errors import LatentError


class Bottled(NamedTuple):
    """What every bottleneck returns."""

    z: Tensor  # [B, D, F]
    codes: tuple[
        Tensor, ...
    ]  # [B, K, F] int64 for each level, coarse levels first; empty if continuous
    moments: tuple[Tensor, Tensor] | None  # (mu, logvar), [B, D, F] each; None if discrete
    terms: dict[str, Tensor]  # unweighted scalars, e.g. {"kl": nats per second}
    mask: Tensor | None = None  # [B, F] bool, False in the frames that an item lacks


class Bottleneck(nn.Module):
    """Base of every bottleneck."""

    @abstractmethod
    def forward(
        self, h: Tensor, *, sample: bool, generators: Sequence[torch.Generator] = ()
    ) -> Bottled:
        """h [B, W, F] -> Bottled; `sample` draws where there is something to draw."""

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Codes that each of the K codebooks has, coarse first; empty if the latent is continuous."""
        return ()

    def from_codes(self, codes: Tensor) -> Tensor:
        """Codes [B, K, F], K from 1 to all codebooks, the first ones -> z [B, D, F].

        Raises LatentError for codes that are out of range, too many codebooks, or where there are none.
        """
        raise LatentError(
            f"a {type(self).__name__} bottleneck has no codes: its latent is continuous"
        )

    @property
    def fresh(self) -> bool:
        """Whether `begin` would place something."""
        return False

    def begin(self, seed: int) -> None:  # noqa: B027, RUF100
        """Place codes by the forward passes in training since the last call, the same ones in every process."""

    def commit(self, seed: int) -> None:  # noqa: B027, RUF100
        """Take over what the forward passes in training since the last call have seen; `seed` draws new codes.

        Called by every process of a run, once a step, after its loss and gradients proved finite.
        """

    def discard(self) -> None:  # noqa: B027, RUF100
        """Forget what the forward passes since the last `commit` have seen: the step was not finite."""
