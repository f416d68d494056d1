"""The token source: its statistics are those of its formulas, and the bounds follow from them."""

from __future__ import annotations

import math

import pytest
import torch

from audiovae.data import TokenSourceData, TokenSpec, open_tokens
from audiovae.data.token_source import TokenSource, best_bound
from audiovae.errors import DataError

SPEC = TokenSpec((2, 2, 2), token_rate=64.0, multiple_of=24)


def source(**settings: float) -> TokenSource:
    opened = open_tokens(TokenSourceData(**settings), SPEC)
    assert isinstance(opened, TokenSource)
    return opened


def nats(counts: torch.Tensor) -> float:
    """The entropy of the last dimension given the others, of what was counted."""
    p = counts / counts.sum(-1, keepdim=True)
    return float((counts.sum(-1) / counts.sum() * torch.special.entr(p).sum(-1)).sum())


def test_pairs_of_neighbours_tell_the_factor_and_a_frame_does_not() -> None:
    batch = source(noise=0.4).train_batch(0, 0, range(2_000))
    x, factor = batch.x, batch.labels["factor"]
    counts = torch.zeros(2, 2, 2)  # factor, bit before, bit
    index = (factor[..., None].expand(-1, -1, 23), x[..., :-1], x[..., 1:])
    counts.index_put_(index, torch.ones(()), accumulate=True)
    share = counts / counts.sum(-1, keepdim=True)
    stays = torch.tensor([[0.8, 0.2], [0.2, 0.8]])
    torch.testing.assert_close(share, torch.stack([stays, stays.flip(1)]), rtol=0, atol=0.02)
    for bit in (0, 1):  # any frame of any stream, whatever the factor is
        even = x.float().where(factor[..., None] == bit, torch.nan).nanmean(0)
        torch.testing.assert_close(even, torch.full((3, 24), 0.5), rtol=0, atol=0.06)
    assert len((factor @ torch.tensor([4, 2, 1])).unique()) == 8
    bounds = best_bound(0.4, 24)
    without = 3 * (math.log(2) + 23 * nats(counts.sum(0)))
    assert bounds.without_z == pytest.approx(without, rel=2e-3)
    told = 6 * math.log(2) + 3 * 23 * nats(counts)
    assert bounds.with_z == pytest.approx(told, rel=1e-2)


def test_the_factor_pays_unless_there_is_nothing_but_noise() -> None:
    assert best_bound(0.35, 24).without_z - best_bound(0.35, 24).with_z > 10
    assert best_bound(0.0, 24) == pytest.approx((72 * math.log(2), 6 * math.log(2)))
    blind = best_bound(1.0, 24)
    assert blind.with_z - blind.without_z == pytest.approx(3 * math.log(2))


def test_items_are_functions_of_seed_step_and_item() -> None:
    data = source()
    whole = data.train_batch(1, 2, range(6)).x
    assert torch.equal(whole[4:], data.train_batch(1, 2, range(4, 6)).x)
    assert not torch.equal(whole, data.train_batch(1, 3, range(6)).x)
    valid = torch.cat([batch.x for batch in source(valid_crops=10).valid_batches(4)])
    assert len(valid) == 10 and len(valid.flatten(1).unique(dim=0)) == 10
    assert source().fingerprint != source(noise=0.4).fingerprint
    assert "49.9 nats each, 36.2 with the factor" in data.describe()


def test_a_model_of_other_tokens_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"3 codebooks of 2 codes, .* of 2, 4; set model.codebook_s"
    ):
        open_tokens(TokenSourceData(), SPEC._replace(codebook_sizes=(2, 4)))
