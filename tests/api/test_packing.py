"""Packed codes: nothing is lost, nothing is wasted, nothing out of range passes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audiovae.api.packing import grouping, pack, unpack
from audiovae.errors import LatentError


@given(
    sizes=st.lists(st.integers(1, 70_000), min_size=1, max_size=4),
    frames=st.integers(0, 200),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_codes_come_back_as_they_were(sizes: list[int], frames: int, seed: int) -> None:
    chance = torch.Generator().manual_seed(seed)
    codes = torch.stack([torch.randint(size, (frames,), generator=chance) for size in sizes])
    codes[:, -1:] = torch.tensor(sizes)[:, None] - 1  # the highest code there is
    assert torch.equal(unpack(pack(codes, sizes), sizes, frames), codes)


@pytest.mark.parametrize("size", [2, 3, 5, 7, 625, 1000, 1024, 2048, 15_360])
def test_a_code_takes_its_information_and_little_more(size: int) -> None:
    codes = torch.randint(size, (8, 10_000))
    nominal = codes.numel() * math.log2(size) / 8  # bytes
    assert nominal <= len(pack(codes, [size] * 8)) + 1e-6
    assert len(pack(codes, [size] * 8)) <= 1.02 * nominal + 64


def test_a_power_of_two_is_written_code_by_code() -> None:
    assert pack(torch.tensor([[1, 2, 3, 0]]), [4]).tolist() == [0b00111001]
    assert grouping(4096) == (1, 12)


def test_more_numbers_than_a_block_holds() -> None:
    codes = torch.randint(1000, (1, 6 * (1 << 16) + 7))
    assert torch.equal(unpack(pack(codes, [1000]), [1000], codes.shape[1]), codes)


def test_a_code_out_of_range_is_refused() -> None:
    with pytest.raises(LatentError, match="a code of a codebook of 4 is 0 to 3, got"):
        pack(torch.tensor([[0, 4]]), [4])
    with pytest.raises(LatentError, match="a code of a codebook of 4 is 0 to 3, got"):
        pack(torch.tensor([[-1, 0]]), [4])


def test_bytes_that_are_missing_or_damaged_are_refused() -> None:
    packed = pack(torch.zeros(1, 100, dtype=torch.int64), [1000])
    with pytest.raises(LatentError, match=r"100 frames of 1 codebooks take 125 bytes, got 124"):
        unpack(packed[:-1], [1000], 100)
    with pytest.raises(LatentError, match="out of range for its codebook of 1000"):
        unpack(torch.full_like(packed, 255), [1000], 100)
