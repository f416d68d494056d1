"""How codes move: averages by hand, k-means on clusters that are known, revival that lasts, steps that are forgotten."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from audiovae.bottlenecks.codebook import Codebook, CodebookConfig, draw, kmeans, spread


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def codebook(**settings: Any) -> Codebook:
    torch.manual_seed(0)
    defaults = {"latent_dim": 3, "codebook_size": 8, "kmeans_iterations": 0, "revive_below": 0.0}
    return Codebook(CodebookConfig(**(defaults | settings)))


def step(book: Codebook, *parts: Tensor, seed: int = 0) -> None:
    """Show the codebook the micro-batches of a step, and commit."""
    for rows in parts:
        book.gather(rows, book.search(rows))
    use = book.take_use()
    assert use is not None
    book.absorb(use, chance(seed))
    book.discard()


def test_averages_follow_their_formula() -> None:
    book = codebook(decay=0.9)
    counts, sums, vectors = torch.ones(8), book.sums.clone(), book.vectors.clone()
    for number in range(3):
        rows = drawn(20, 3, seed=number)
        nearest = torch.cdist(rows, vectors).argmin(1)
        for code in range(8):
            chose = rows[nearest == code]
            counts[code] = 0.9 * counts[code] + 0.1 * len(chose)
            sums[code] = 0.9 * sums[code] + 0.1 * chose.sum(0)
        vectors = sums / counts[:, None]
        step(book, rows)
        torch.testing.assert_close(book.counts, counts)
        torch.testing.assert_close(book.sums, sums)
        torch.testing.assert_close(book.vectors, vectors)


def test_micro_batches_count_as_one_step() -> None:
    whole, split = codebook(), codebook()
    rows = drawn(64, 3)
    step(whole, rows)
    step(split, rows[:40], rows[40:])
    torch.testing.assert_close(split.vectors, whole.vectors)
    assert torch.equal(split.counts, whole.counts)


def test_a_code_that_is_never_used_keeps_its_place() -> None:
    book = codebook(decay=0.1)
    far = book.vectors[0] = torch.tensor([100.0, 0, 0])
    book.sums[0] = far
    for number in range(60):  # 0.1^60: sums and counts are 0 by then
        step(book, drawn(20, 3, seed=number))
    assert book.counts[0] == 0
    torch.testing.assert_close(book.vectors[0], torch.tensor([100.0, 0, 0]))


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_a_dead_code_moves_to_a_row_of_the_step_and_stays_there(update: str) -> None:
    book = codebook(revive_below=0.1, update=update, decay=0.9)
    with torch.no_grad():
        book.vectors[0] = 1e3
    book.counts[0] = 0.01
    rows = drawn(80, 3)
    step(book, rows)
    place = book.vectors[0].detach().clone()
    assert (rows == place).all(1).any()
    assert float(book.counts[0]) == pytest.approx(float(book.counts[1:].mean()), rel=0.2)
    unheard = rows[(rows - place).norm(dim=1) > 1.5]
    step(book, unheard)  # nothing near it in this step: averages left behind would pull it back
    torch.testing.assert_close(book.vectors[0].detach(), place)


def test_no_more_codes_are_revived_than_there_are_rows() -> None:
    book = codebook(revive_below=0.1)
    book.counts[:6] = 0
    step(book, torch.tensor([[50.0, 0, 0], [0, 50.0, 0]]))
    assert (book.vectors.norm(dim=1) == 50).sum() == 2
    assert len(book.vectors.unique(dim=0)) == 8


def test_what_is_discarded_was_never_seen() -> None:
    book = codebook(revive_below=0.1)
    before = {name: value.clone() for name, value in book.state_dict().items()}
    rows = torch.full((5, 3), torch.nan)
    book.gather(rows, book.search(rows))
    assert all(torch.equal(value, before[name]) for name, value in book.state_dict().items())
    book.discard()
    assert book.take_use() is None
    step(book, drawn(20, 3))
    assert book.vectors.isfinite().all()


def test_codes_that_learn_by_gradient_alone_keep_nothing_else() -> None:
    book = codebook(update="gradient")
    assert list(book.state_dict()) == ["vectors"] and not book.tracks


@pytest.mark.parametrize("normalise", [False, True])
def test_kmeans_finds_clusters_that_are_far_apart(normalise: bool) -> None:
    """From one row of each of four clusters their means follow, and how many rows they have."""
    centres = 10 * torch.eye(4)
    sizes = torch.tensor([10, 20, 30, 40])
    rows = centres.repeat_interleave(sizes, 0) + 0.1 * drawn(100, 4)
    config = CodebookConfig(latent_dim=4, codebook_size=4, normalise=normalise)
    for seed in range(200):
        first = torch.randperm(100, generator=chance(seed))[:4]
        if len(torch.bucketize(first, sizes.cumsum(0), right=True).unique()) == 4:
            break
    means, counts = kmeans(rows, config, chance(seed))
    order = means.argmax(1).argsort()
    assert torch.equal(counts[order], sizes)
    expected = torch.stack([part.mean(0) for part in rows.split(sizes.tolist())])
    torch.testing.assert_close(means[order], expected)


def test_kmeans_never_raises_the_error() -> None:
    rows, errors = drawn(500, 3), []
    for rounds in (1, 2, 4, 8, 16):
        config = CodebookConfig(latent_dim=3, codebook_size=16, kmeans_iterations=rounds)
        means, _ = kmeans(rows, config, chance())
        errors.append(float(torch.cdist(rows, means).amin(1).square().mean()))
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.9 * errors[0]


def test_a_first_step_with_few_rows_places_few_codes_and_the_next_ones_the_rest() -> None:
    book = codebook(kmeans_iterations=5, revive_below=0.1)
    assert not book.initialised
    book.begin(drawn(12, 3), 12, chance())
    assert book.initialised and int((book.counts > 0).sum()) == 3  # one for four rows
    torch.testing.assert_close(book.sums, book.vectors * book.counts[:, None])
    for number in range(3):
        step(book, drawn(10, 3, seed=5 + number), seed=number)
    assert (book.counts > 0.1 * book.counts.mean()).all()
    assert len(book.vectors.unique(dim=0)) == 8


def test_rows_are_drawn_once_each_and_spread_evenly() -> None:
    rows = torch.arange(10.0)[:, None]
    assert torch.equal(draw([rows[:4], rows[4:]], None, chance()), rows)
    some = draw([rows[:4], rows[4:]], 6, chance())
    assert len(some.unique()) == 6
    assert not torch.equal(some, draw([rows], 6, chance(1)))
    assert len(draw([rows], 99, chance())) == 10
    assert spread(rows, 4).flatten().tolist() == [0, 2, 5, 7]
    assert spread(rows, 10) is rows
