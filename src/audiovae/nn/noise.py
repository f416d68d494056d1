"""Noise that is the same on every machine: drawn in float64 on the CPU, one generator an item.

float32 `torch.randn` differs between the vector instruction sets of processors, float64 does not; and a
generator an item makes a batch equal to its single items and two processes equal to one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def generators(seed: int, *position: int, items: int, first: int = 0) -> list[torch.Generator]:
    """One generator for each of `items` items, seeded by (seed, position..., item).

    `first` is the number of the first item, so that the second process of two goes on counting.
    """
    return [
        torch.Generator().manual_seed(mix(seed, *position, first + item)) for item in range(items)
    ]


def mix(*numbers: int) -> int:
    """Fold numbers into one 63-bit seed (the finaliser of SplitMix64 after each).

    >>> mix(1, 2) != mix(2, 1)
    True
    """
    mask, state = 0xFFFF_FFFF_FFFF_FFFF, 0x9E37_79B9_7F4A_7C15
    for number in numbers:
        state = (state + (number & mask) + 0x9E37_79B9_7F4A_7C15) & mask
        state = ((state ^ (state >> 30)) * 0xBF58_476D_1CE4_E5B9) & mask
        state = ((state ^ (state >> 27)) * 0x94D0_49BB_1331_11EB) & mask
        state ^= state >> 31
    return state >> 1


def standard_normal(like: Tensor, generators: Sequence[torch.Generator] = ()) -> Tensor:
    """Standard normal noise [B, ...] of the shape, type and device of `like`.

    One generator an item (each advances); with none given, torch's global CPU generator is used.
    """
    if not generators:
        noise = torch.randn(like.shape, dtype=torch.float64)
    elif len(generators) != len(like):
        raise ValueError(f"one generator an item: got {len(generators)} for {len(like)} items")
    else:
        noise = torch.stack(
            [torch.randn(like.shape[1:], dtype=torch.float64, generator=g) for g in generators]
        )
    return noise.to(like.device, like.dtype)
