"""Which code is nearest, by plain matrix products over blocks of scores that stay in the cache.

    argmin over codes c of |x - c|^2  =  argmax of  x . c - |c|^2 / 2

because |x|^2 is the same for every code. All scores at once would be written to memory and read back: a block of rows
is scored and decided before the next one. The largest of a row is found in two steps, since a maximum over whole rows
of numbers is fast where an arg-max is not: fold the V scores to V / g columns, find the best column, then the best of
its g scores. (Measured by benchmarks/codebook_search.py.)
"""

from __future__ import annotations

import torch
from torch import Tensor

SCORES = 512 * 1024  # of a block on a CPU: 2 MB of float32, few enough for a core's caches
SCORES_ELSEWHERE = 64 * 1024 * 1024  # on a GPU a block is there to bound memory
FOLD = 16  # g


@torch.no_grad()
def nearest(x: Tensor, codebook: Tensor, *, by_angle: bool = False) -> Tensor:
    """The number of the nearest code for each row.  x [..., d], codebook [V, d] -> [...] int64.

    Euclidean distance, or with `by_angle` the angle between the two; of equally near codes any. Float32 whatever comes
    in: bf16 has too few bits to tell codes apart.
    """
    rows = x.float().flatten(0, -2)  # [N, d]
    columns, offset = _prepared(codebook.float(), by_angle)  # [d, V'], [V']
    at_once = SCORES if x.device.type == "cpu" else SCORES_ELSEWHERE
    found = rows.new_empty(len(rows), dtype=torch.int64)
    blocks = rows.split(max(1, at_once // len(offset)))
    scores = rows.new_empty(len(blocks[0]), len(offset))
    with torch.autocast(x.device.type, enabled=False):
        for block, chosen in zip(blocks, found.split(len(blocks[0])), strict=True):
            torch.addmm(offset, block, columns, out=scores[: len(block)])
            _largest(scores[: len(block)], chosen)
    return found.view(x.shape[:-1])


def _prepared(codes: Tensor, by_angle: bool) -> tuple[Tensor, Tensor]:
    """Codes as columns and what to add to their products; filled up to a multiple of g with codes that never win."""
    if by_angle:
        codes = torch.nn.functional.normalize(codes, dim=1)
        offset = codes.new_zeros(len(codes))
    else:
        offset = -0.5 * codes.square().sum(1)
    if missing := -len(codes) % FOLD:
        codes = torch.nn.functional.pad(codes, (0, 0, 0, missing))
        offset = torch.nn.functional.pad(offset, (0, missing), value=-torch.inf)
    return codes.mT, offset


def _largest(scores: Tensor, chosen: Tensor) -> None:
    """Write the number of the largest score of each row [n, V'] into chosen [n]."""
    folded = scores.unflatten(1, (FOLD, -1))  # [n, g, V' / g]
    column = folded.amax(1).argmax(1, keepdim=True)  # [n, 1]
    candidates = folded.gather(2, column[:, None].expand(-1, FOLD, 1))[..., 0]  # [n, g]
    torch.add(column[:, 0], candidates.argmax(1), alpha=folded.shape[2], out=chosen)
