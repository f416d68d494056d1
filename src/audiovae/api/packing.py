"""Codes as the fewest whole bits: what a discrete latent weighs on disk.

A code of a codebook of n takes log2(n) bits. Where that is no whole number, g codes are written as one number in base n,

    c[0] + c[1] n + ... + c[g-1] n^(g-1)  <  2^bits,     bits = ceil(g log2(n)) <= 62

with the g that wastes least; for n a power of two that is one code at a time. Each codebook starts on a whole byte.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from audiovae.errors import LatentError

MOST_BITS = 62  # of a number that int64 holds
BLOCK = 1 << 16  # numbers that are spread into bits at a time


def pack(codes: Tensor, sizes: Sequence[int]) -> Tensor:
    """Codes [K, F] of codebooks of these sizes -> bytes, uint8 [n].  Raises LatentError for a code out of range."""
    return torch.cat([_pack_row(row, size) for row, size in zip(codes, sizes, strict=True)])


def unpack(packed: Tensor, sizes: Sequence[int], frames: int) -> Tensor:
    """Undo `pack`.  uint8 [n] -> codes [K, frames] int64.  Raises LatentError for a wrong number of bytes or a code out of range."""
    lengths = [_row_bytes(size, frames) for size in sizes]
    if packed.dtype != torch.uint8 or packed.ndim != 1 or len(packed) != sum(lengths):
        raise LatentError(
            f"{frames} frames of {len(sizes)} codebooks take {sum(lengths)} bytes, got {packed.numel()}"
        )
    rows = zip(packed.split(lengths), sizes, strict=True)
    return torch.stack([_unpack_row(row, size, frames) for row, size in rows])


def grouping(size: int) -> tuple[int, int]:
    """How many codes of a codebook of `size` go into one number, and its bits.

    >>> grouping(1024), grouping(1000), grouping(3)
    ((1, 10), (6, 60), (12, 20))
    """
    best = (1, (size - 1).bit_length())
    for group in range(2, MOST_BITS + 1):
        bits = (size**group - 1).bit_length()
        if bits > MOST_BITS:
            break
        if bits * best[0] < best[1] * group:  # fewer bits a code
            best = (group, bits)
    return best


def _pack_row(row: Tensor, size: int) -> Tensor:
    if row.numel() and not 0 <= int(row.min()) <= int(row.max()) < size:
        raise LatentError(
            f"a code of a codebook of {size} is 0 to {size - 1}, got {row.tolist()[:8]}"
        )
    group, bits = grouping(size)
    padded = np.zeros(-(-len(row) // group) * group, dtype=np.int64)
    padded[: len(row)] = row.numpy()
    numbers = padded.reshape(-1, group) @ (size ** np.arange(group, dtype=np.int64))
    # whole blocks are whole bytes: BLOCK is a multiple of 8
    parts = [_spread(numbers[at : at + BLOCK], bits) for at in range(0, len(numbers), BLOCK)]
    return torch.from_numpy(np.concatenate([*parts, np.zeros(0, np.uint8)]))


def _unpack_row(row: Tensor, size: int, frames: int) -> Tensor:
    group, bits = grouping(size)
    count = -(-frames // group)
    bits_of = np.unpackbits(row.numpy(), count=count * bits, bitorder="little")
    numbers = bits_of.reshape(count, bits) @ (1 << np.arange(bits, dtype=np.int64))
    digits = numbers[:, None] // (size ** np.arange(group, dtype=np.int64)) % size
    if count and int(numbers.max()) >= size**group:
        raise LatentError(f"a code is out of range for its codebook of {size}; the file is damaged")
    return torch.from_numpy(digits.reshape(-1)[:frames].copy())


def _spread(numbers: np.ndarray, bits: int) -> np.ndarray:
    """Numbers [n] -> their low bits, lowest first, in bytes."""
    return np.packbits(numbers[:, None] >> np.arange(bits) & 1, bitorder="little")


def _row_bytes(size: int, frames: int) -> int:
    group, bits = grouping(size)
    return -(-(-(-frames // group) * bits) // 8)
