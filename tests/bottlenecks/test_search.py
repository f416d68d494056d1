"""The nearest code is the nearest code: at every size, in every block, whatever the precision around it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from audiovae.bottlenecks import search
from audiovae.bottlenecks.search import nearest


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scores", [64, search.SCORES])
@pytest.mark.parametrize(
    ("rows", "size", "dim"),
    [(1, 2, 1), (7, 3, 5), (300, 31, 8), (65, 32, 2), (200, 33, 16), (40, 1000, 3)],
)
def test_no_code_is_nearer(
    rows: int, size: int, dim: int, scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "SCORES", scores)
    x, codes = 3 * drawn(rows, dim), drawn(size, dim, seed=1)
    distances = torch.cdist(x.double(), codes.double())  # [rows, size]
    found = nearest(x, codes)
    chosen = distances.gather(1, found[:, None])[:, 0]
    torch.testing.assert_close(chosen, distances.amin(1), rtol=0, atol=1e-5)


def test_codes_that_fill_up_a_block_are_never_found() -> None:
    far = torch.full((50, 4), 1e4)
    assert nearest(-far, far[:3]).unique().tolist() == [0]
    assert nearest(torch.full((5, 4), torch.nan), drawn(3, 4)).max() < 3


def test_leading_dimensions_are_kept() -> None:
    x, codes = drawn(2, 5, 4), drawn(40, 4, seed=1)
    assert torch.equal(nearest(x, codes), nearest(x.flatten(0, 1), codes).view(2, 5))


def test_by_angle_the_length_of_neither_counts() -> None:
    x, codes = drawn(100, 4), drawn(40, 4, seed=1)
    lengths = 0.1 + drawn(40, 1, seed=2).abs()
    cosines = torch.nn.functional.cosine_similarity(x[:, None], codes, dim=2)
    found = nearest(x, codes, by_angle=True)
    assert torch.equal(found, cosines.argmax(1))
    assert torch.equal(nearest(7 * x, lengths * codes, by_angle=True), found)


def test_autocast_and_low_precision_input_change_nothing() -> None:
    x, codes = drawn(300, 16).bfloat16(), drawn(256, 16, seed=1)
    expected = nearest(x.float(), codes)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(nearest(x, codes), expected)
