"""Decoders of codes: the order in which codes depend on each other, and generation equal to the distribution."""

from __future__ import annotations

import pytest
import torch

from audiovae.nn.code_decoders import PADDING, AutoregressiveDecoder, CodeEmbedding, ParallelDecoder
from audiovae.nn.transformer import TransformerConfig

SIZES, FRAMES = (5, 3, 4), 6


def autoregressive(window: int | None = None) -> AutoregressiveDecoder:
    torch.manual_seed(0)
    stack = TransformerConfig(width=16, layers=2, heads=2, hidden=16, window=window)
    return AutoregressiveDecoder(SIZES, FRAMES, 4, stack).eval()


def codes(items: int = 2) -> torch.Tensor:
    chance = torch.Generator().manual_seed(1)
    rows = [torch.randint(size, (items, FRAMES), generator=chance) for size in SIZES]
    return torch.stack(rows, dim=1)


def test_every_code_and_every_unknown_one_has_its_own_vector() -> None:
    embed = CodeEmbedding(SIZES, 8)
    everything = [torch.arange(-1, size) for size in SIZES]
    vectors = torch.cat(
        [
            embed(
                torch.full((1, 3, len(values)), PADDING).index_copy(
                    1, torch.tensor([k]), values[None, None]
                )
            )[0, k]
            for k, values in enumerate(everything)
        ]
    )
    assert len(vectors.unique(dim=0)) == len(vectors) == sum(SIZES) + len(SIZES)


@pytest.mark.parametrize("window", [None, 1, 2])
def test_a_code_depends_on_those_before_it_and_on_no_other(window: int | None) -> None:
    decoder, x, z = autoregressive(window), codes(1), torch.randn(1, 4)
    before = decoder(z, x)
    for n in range(FRAMES):
        for k, size in enumerate(SIZES):
            changed = x.clone()
            changed[0, k, n] = (x[0, k, n] + 1) % size
            for j, (a, b) in enumerate(zip(before, decoder(z, changed), strict=True)):
                differs = (a - b).abs().amax(-1)[0] > 1e-6  # [N]
                reach = FRAMES if window is None else 2 * (window - 1) + 1  # two layers
                seen = [n < m <= n + reach or (m == n and j > k) for m in range(FRAMES)]
                assert differs.tolist() == seen, (n, k, j)


def test_what_is_generated_is_the_most_likely_code_after_those_before_it() -> None:
    decoder, z = autoregressive(), torch.randn(3, 4)
    with torch.no_grad():
        generated = decoder.generate(z)
        again = torch.stack([logits.argmax(-1) for logits in decoder(z, generated)], dim=1)
    assert torch.equal(generated, again)
    assert len(generated.flatten(1).unique(dim=0)) > 1  # z has a say


def test_the_parallel_decoder_takes_nothing_but_the_latent() -> None:
    torch.manual_seed(0)
    stack = TransformerConfig(width=16, layers=1, heads=2, hidden=16, causal=False)
    decoder, z = ParallelDecoder(SIZES, FRAMES, 4, stack), torch.randn(3, 4)
    with torch.no_grad():
        for a, b in zip(decoder(z, codes(3)), decoder(z, codes(3).flip(2)), strict=True):
            assert torch.equal(a, b)
        each = torch.cat([decoder.generate(item[None]) for item in z])
        assert torch.equal(decoder.generate(z), each)
        assert len(each[0, 0].unique()) > 1  # places differ
