"""The token source: its statistics are those of its formulas, and the bounds follow from them."""

from __future__ import annotations

import math

import pytest
import torch

from audiovae.data import TokenSourceData, TokenSpec, open_tokens
from audiovae.data.token_source import TokenSource, best_bound, probabilities
from audiovae.errors import DataError

SPEC = TokenSpec((16,), token_rate=64.0, multiple_of=32)


def source(**settings: float) -> TokenSource:
    opened = open_tokens(TokenSourceData(**settings), SPEC)
    assert isinstance(opened, TokenSource)
    return opened


def nats(counts: torch.Tensor) -> float:
    """The entropy of what was counted."""
    return float(torch.special.entr(counts / counts.sum()).sum())


def test_the_bounds_are_the_entropies_of_the_sequences() -> None:
    batch = source(noise=0.6).train_batch(0, 0, range(4_000))
    x, factor = batch.x[:, 0], batch.labels["class"]
    counts = torch.zeros(8, 16).index_put_(
        (factor[:, None].expand_as(x), x), torch.ones(()), accumulate=True
    )
    expected = probabilities(0.6).float()
    torch.testing.assert_close(counts / counts.sum(1, keepdim=True), expected, rtol=0, atol=0.01)
    pairs = torch.zeros(16, 16).index_put_((x[:, :-1], x[:, 1:]), torch.ones(()), accumulate=True)
    bounds = best_bound(0.6, 32)
    without = math.log(16) + 31 * (nats(pairs) - math.log(16))
    assert bounds.without_z == pytest.approx(without, rel=2e-3)
    told = math.log(8) + 32 * sum(nats(row) for row in counts) / 8
    assert bounds.with_z == pytest.approx(told, rel=2e-3)


def test_classes_are_even_and_the_bounds_meet_where_there_is_only_noise() -> None:
    seen = source().train_batch(1, 0, range(2_000)).labels["class"].bincount(minlength=8)
    assert (seen / 2_000 - 1 / 8).abs().max() < 0.03
    assert best_bound(0.6, 32).without_z - best_bound(0.6, 32).with_z > 5
    blind = best_bound(1.0, 32)
    assert blind == pytest.approx((32 * math.log(16), 32 * math.log(16) + math.log(8)))
    assert best_bound(0.0, 32).with_z == pytest.approx(math.log(8) + 32 * math.log(2))


def test_items_are_functions_of_seed_step_and_item() -> None:
    data = source()
    whole = data.train_batch(1, 2, range(6)).x
    assert torch.equal(whole[4:], data.train_batch(1, 2, range(4, 6)).x)
    assert not torch.equal(whole, data.train_batch(1, 3, range(6)).x)
    valid = torch.cat([batch.x for batch in source(valid_crops=10).valid_batches(4)])
    assert len(valid) == 10 and len(valid.flatten(1).unique(dim=0)) == 10
    assert source().fingerprint != source(noise=0.4).fingerprint
    best = best_bound(0.6, 32)
    assert f"{best.without_z:.1f} nats each, {best.with_z:.1f} with the class" in data.describe()


def test_a_model_of_other_tokens_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"codebook of 16 codes, .* of 2, 4; set model.codebook_sizes"
    ):
        open_tokens(TokenSourceData(), SPEC._replace(codebook_sizes=(2, 4)))
