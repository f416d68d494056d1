"""Mid and side: the two channels of stereo turned by 45 degrees.

    mid = (left + right) / 2,    side = (left - right) / 2,    left = mid + side,    right = mid - side

Most music is nearly mono, so mid holds most of it, and an error of the stereo image stands alone in side.
"""

from __future__ import annotations

import torch
from torch import Tensor


def mid_side(x: Tensor) -> Tensor:
    """Left and right to mid and side.  x [..., 2, T] -> [..., 2, T].

    >>> mid_side(torch.tensor([[1.0], [0.5]])).flatten().tolist()
    [0.75, 0.25]
    """
    left, right = x.unbind(-2)
    return torch.stack([(left + right) / 2, (left - right) / 2], dim=-2)


def left_right(x: Tensor) -> Tensor:
    """Mid and side back to left and right; the inverse of `mid_side`.  x [..., 2, T] -> [..., 2, T]."""
    mid, side = x.unbind(-2)
    return torch.stack([mid + side, mid - side], dim=-2)
