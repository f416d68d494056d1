"""Which code is nearest, in blocks of scores that stay in the cache.

    argmin over codes c of |x - c|^2  =  argmax of  x . c - |c|^2 / 2

because |x|^2 is the same for every code. The scores of all rows at once would be written to memory and read back; a
block of rows is scored and decided before the next one is begun.
"""

from __future__ import annotations

import torch
from torch import Tensor

SCORES = 256 * 1024  # of a block: 1 MB of float32, half of a core's second-level cache


@torch.no_grad()
def nearest(x: Tensor, codebook: Tensor, *, by_angle: bool = False) -> Tensor:
    """The number of the nearest code for each row.  x [..., d], codebook [V, d] -> [...] int64.

    Euclidean distance, or with `by_angle` the angle between the two. Float32 whatever comes in: bf16 has too few bits
    to tell codes apart.
    """
    rows, codes = x.float().flatten(0, -2), codebook.float()  # [N, d], [V, d]
    if by_angle:
        codes = torch.nn.functional.normalize(codes, dim=1)
    offset = -0.5 * codes.square().sum(1)  # [V]
    columns = codes.mT.contiguous()  # [d, V]
    with torch.autocast(x.device.type, enabled=False):
        found = [
            torch.addmm(offset, block, columns).argmax(1)
            for block in rows.split(max(1, SCORES // len(codes)))
        ]
    return torch.cat(found).unflatten(0, x.shape[:-1])
