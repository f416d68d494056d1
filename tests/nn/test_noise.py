"""Noise that does not depend on the batch, on the process or on the type it is cast to."""

import pytest
import torch

from audiovae.nn.noise import generators, mix, standard_normal


def test_items_get_the_same_noise_in_any_batch():
    together = standard_normal(torch.empty(4, 3, 5), generators(7, 11, items=4))
    apart = [
        standard_normal(torch.empty(2, 3, 5), generators(7, 11, items=2, first=first))
        for first in (0, 2)
    ]
    torch.testing.assert_close(together, torch.cat(apart), rtol=0, atol=0)


def test_noise_is_drawn_in_double_and_then_cast():
    in_double = standard_normal(torch.empty(2, 50, dtype=torch.float64), generators(1, items=2))
    in_single = standard_normal(torch.empty(2, 50), generators(1, items=2))
    torch.testing.assert_close(in_double.float(), in_single, rtol=0, atol=0)


def test_noise_is_standard_normal():
    noise = standard_normal(torch.empty(1, 200_000, dtype=torch.float64), generators(3, items=1))
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01


def test_seeds_that_differ_in_anything_differ():
    seeds = {mix(a, b, c) for a in range(12) for b in range(12) for c in range(12)}
    assert len(seeds) == 12**3
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_one_generator_an_item_is_asked_for():
    with pytest.raises(ValueError, match="got 2 for 3 items"):
        standard_normal(torch.empty(3, 1), generators(0, items=2))
