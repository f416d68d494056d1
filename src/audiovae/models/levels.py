"""Several frame rates in one latent: what the families with more than one level of codes share.

A latent frame is as long as a frame of the coarsest level. Of a level that is r times as fast it holds r frames one after
the other as further dimensions: [B, D, F * r] <-> [B, D * r, F].
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from audiovae.errors import LatentError


def fold(z: Tensor, rate: int) -> Tensor:
    """[B, D, F * rate] -> [B, D * rate, F]."""
    folded: Tensor = z.unflatten(2, (-1, rate)).transpose(2, 3).flatten(1, 2)
    return folded


def unfold(z: Tensor, rate: int) -> Tensor:
    """[B, D * rate, F] -> [B, D, F * rate]."""
    unfolded: Tensor = z.unflatten(1, (-1, rate)).transpose(2, 3).flatten(2)
    return unfolded


def expect_levels(codes: Sequence[Tensor], rates: Sequence[int]) -> None:
    """Raise LatentError unless codes are [B, K, F * rate] for the first one or more of the levels, coarse first."""
    if not 1 <= len(codes) <= len(rates):
        raise LatentError(f"the model has {len(rates)} levels of codes, got {len(codes)}")
    for number, (level, rate) in enumerate(zip(codes, rates, strict=False)):
        if level.ndim != 3 or level.shape[-1] == 0:
            raise LatentError(
                f"codes of a level are [batch, codebooks, frames], got {tuple(level.shape)}"
            )
        if level.shape[-1] * rates[0] != codes[0].shape[-1] * rate or len(level) != len(codes[0]):
            raise LatentError(
                f"level {number} has {rate // rates[0]} frames to one of level 0; "
                f"got {tuple(level.shape)} beside {tuple(codes[0].shape)}"
            )
