"""The token source: its statistics are those of its formulas, and the bounds follow from them."""

from __future__ import annotations

import math

import pytest
import torch

from audiovae.data import TokenSourceData, TokenSpec, open_tokens
from audiovae.data.token_source import TokenSource, best_bound, sequence
from audiovae.errors import DataError

SPEC = TokenSpec((2, 2, 2), token_rate=64.0, multiple_of=32)


def source(**settings: float) -> TokenSource:
    opened = open_tokens(TokenSourceData(**settings), SPEC)
    assert isinstance(opened, TokenSource)
    return opened


def entropy(counts: torch.Tensor) -> float:
    """Nats of the distribution along the last dimension, averaged over the others by their counts."""
    p = counts / counts.sum(-1, keepdim=True)
    weight = counts.sum(-1) / counts.sum()
    return float((weight * -(p * p.clamp(min=1e-12).log()).sum(-1)).sum())


def test_pairs_of_neighbours_tell_the_factor_and_nothing_else_does() -> None:
    batch = source(noise=0.4).train_batch(0, 0, range(2_000))
    x, factor = batch.x, batch.labels["factor"]
    counts = torch.zeros(3, 2, 2, 2)  # stream, factor, bit before, bit
    streams = torch.arange(3)[:, None].expand(2_000, 3, 31)
    index = (streams, factor[..., None].expand_as(streams), x[..., :-1], x[..., 1:])
    counts.index_put_(index, torch.ones(()), accumulate=True)
    stays = counts[..., [0, 1], [0, 1]].sum(-1) / counts.sum((-1, -2))  # [stream, factor]
    assert torch.allclose(stays, torch.tensor([0.8, 0.2]).expand(3, 2), atol=0.02)
    assert torch.allclose(counts.sum(2) / counts.sum((2, 3))[..., None], torch.tensor(0.5), atol=0.02)
    assert torch.allclose(x[:, :, 0].float().mean(0), torch.tensor(0.5), atol=0.05)
    assert len((factor @ torch.tensor([4, 2, 1])).unique()) == 8


def test_the_bounds_are_the_entropies_of_the_sequences() -> None:
    x = torch.stack([sequence(seed, 32, 0.4)[0] for seed in range(2_000)])  # [B, 3, 32]
    factor = torch.stack([sequence(seed, 32, 0.4)[1] for seed in range(2_000)])
    pairs = torch.zeros(2, 2, 2)
    pairs.index_put_(
        (factor[..., None].expand(-1, -1, 31), x[..., :-1], x[..., 1:]), torch.ones(()), accumulate=True
    )
    bounds = best_bound(0.4, 32)
    assert math.isclose(bounds.without_z, 3 * (math.log(2) + 31 * entropy(pairs.sum(0))), rel_tol=2e-3)
    told = 3 * (math.log(2) + 31 * entropy(pairs)) + 3 * math.log(2)
    assert math.isclose(bounds.with_z, told, rel_tol=5e-3)


def test_using_the_latent_pays_unless_there_is_nothing_but_noise() -> None:
    assert best_bound(0.5, 32).without_z - best_bound(0.5, 32).with_z > 10
    assert best_bound(0.0, 32) == pytest.approx((96 * math.log(2), 6 * math.log(2)))
    certain = best_bound(1.0, 32)
    assert certain.with_z - certain.without_z == pytest.approx(3 * math.log(2))


def test_items_are_functions_of_seed_step_and_item() -> None:
    data = source()
    whole = data.train_batch(1, 2, range(6)).x
    assert torch.equal(whole[4:], data.train_batch(1, 2, range(4, 6)).x)
    assert not torch.equal(whole, data.train_batch(1, 3, range(6)).x)
    valid = torch.cat([batch.x for batch in source(valid_crops=10).valid_batches(4)])
    assert len(valid) == 10 and len(valid.flatten(1).unique(dim=0)) == 10
    assert source().fingerprint != source(noise=0.4).fingerprint
    assert "66.5 nats each, 56.5 with the factor" in data.describe()


def test_a_model_of_other_tokens_is_refused() -> None:
    with pytest.raises(DataError, match=r"3 codebooks of 2 codes, .* of 2, 4; set model.codebook_sizes"):
        open_tokens(TokenSourceData(), SPEC._replace(codebook_sizes=(2, 4)))
