"""Several rates in one latent: folded and back, and what is refused."""

from __future__ import annotations

import pytest
import torch

from audiovae.errors import LatentError
from audiovae.models.levels import expect_levels, fold, unfold

RATES = (1, 2, 6)


def test_folded_frames_hold_their_own_and_come_back() -> None:
    z = torch.arange(2 * 3 * 12).view(2, 3, 12).float()  # 4 frames of 3
    folded = fold(z, 3)
    assert folded.shape == (2, 9, 4)
    for frame in range(4):
        assert set(folded[1, :, frame].tolist()) == set(
            z[1, :, 3 * frame : 3 * frame + 3].flatten().tolist()
        )
    assert torch.equal(unfold(folded, 3), z)


def codes(*frames: int, batch: int = 2) -> list[torch.Tensor]:
    return [torch.zeros(batch, 1, count, dtype=torch.int64) for count in frames]


def test_any_number_of_coarse_levels_will_do() -> None:
    for count in (1, 2, 3):
        expect_levels(codes(5, 10, 30)[:count], RATES)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ([], "has 3 levels of codes, got 0"),
        (codes(1, 2, 6, 6), "has 3 levels of codes, got 4"),
        (
            codes(5, 9),
            r"level 1 has 2 frames to one of level 0; got \(2, 1, 9\) beside \(2, 1, 5\)",
        ),
        (codes(5) + codes(10, batch=1), r"level 1 .* got \(1, 1, 10\)"),
        (codes(0), r"\[batch, codebooks, frames\], got \(2, 1, 0\)"),
        ([torch.zeros(2, 5)], r"\[batch, codebooks, frames\], got \(2, 5\)"),
    ],
)
def test_levels_that_do_not_fit_are_refused(levels: list[torch.Tensor], message: str) -> None:
    with pytest.raises(LatentError, match=message):
        expect_levels(levels, RATES)
