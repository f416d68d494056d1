"""FSQ: every code of every size comes back, and digits agree with an independent implementation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import vector_quantize_pytorch as peers
from torch import Tensor

from audiovae.bottlenecks import FSQ, FSQConfig
from audiovae.config import parse
from audiovae.errors import ConfigError, LatentError

PAPER = [(8, 6, 5), (8, 5, 5, 5), (7, 5, 5, 5, 5), (8, 8, 8, 6, 5), (8, 8, 8, 5, 5, 5)]  # table 1
OTHERS = [(3,), (3, 4), (256, 256), (255, 3), (4, 4, 4, 4, 4, 4, 4, 4)]


def fsq(levels: tuple[int, ...], n_codebooks: int = 1, width: int | None = None) -> FSQ:
    torch.manual_seed(0)
    return FSQ(FSQConfig(levels=levels, n_codebooks=n_codebooks), width, 10.0)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def before_bounding(z: Tensor, levels: tuple[int, ...]) -> Tensor:
    """Features that are bounded to exactly z [1, d, F]: the inverse of Mentzer 2023, eq. 1 and app. A.1."""
    count = torch.tensor(levels, dtype=torch.float64)[:, None]
    half, offset = (count - 1) * 1.001 / 2, 0.5 * (count % 2 == 0)
    return (((z.double() * (count // 2) + offset) / half).atanh() - (offset / half).atanh()).float()


@pytest.mark.parametrize("levels", PAPER + OTHERS)
def test_every_code_comes_back(levels: tuple[int, ...]) -> None:
    bottleneck = fsq(levels)
    (size,) = bottleneck.codebook_sizes
    codes = torch.arange(size).view(1, 1, -1)
    z = bottleneck.from_codes(codes)
    assert len(z[0].mT.unique(dim=0)) == size
    assert z.abs().max() == 1
    with torch.autocast("cpu", torch.bfloat16):
        bottled = bottleneck(before_bounding(z, levels), sample=False)
        again = bottleneck.from_codes(codes)
    assert torch.equal(bottled.codes[0], codes)
    assert torch.equal(bottled.z, z) and torch.equal(again, z)


@pytest.mark.parametrize("levels", [*PAPER, (4, 3), (256, 7)])
def test_codes_and_latents_equal_those_of_vector_quantize_pytorch(levels: tuple[int, ...]) -> None:
    h = 3 * drawn(2, len(levels), 300)
    bottled = fsq(levels)(h, sample=False)
    z, codes = peers.FSQ(list(levels))(h.mT)
    torch.testing.assert_close(bottled.z, z.mT)
    assert torch.equal(bottled.codes[0][:, 0], codes.long())


def test_the_gradient_is_that_of_the_bound_alone() -> None:
    h = drawn(1, 2, 50).requires_grad_()
    z = fsq((5, 8))(h, sample=False).z
    (gradient,) = torch.autograd.grad(z.sum(), h)
    half = torch.tensor([4 * 1.001 / 2, 7 * 1.001 / 2])[:, None]
    shift = torch.tensor([0.0, 0.5])[:, None] / half
    slope = half * (1 - torch.tanh(h.detach() + shift.atanh()).square())
    torch.testing.assert_close(gradient, slope / torch.tensor([2.0, 4.0])[:, None])


def test_codebooks_lie_side_by_side_and_any_first_few_can_be_decoded() -> None:
    bottleneck = fsq((5, 3), n_codebooks=3)
    h = 2 * drawn(2, 6, 20)
    bottled = bottleneck(h, sample=False)
    for number, alone in enumerate(h.split(2, dim=1)):
        one = fsq((5, 3))(alone, sample=False)
        assert torch.equal(one.codes[0][:, 0], bottled.codes[0][:, number])
        assert torch.equal(one.z, bottled.z[:, 2 * number : 2 * number + 2])
    prefix = bottleneck.from_codes(bottled.codes[0][:, :2])
    assert torch.equal(prefix[:, :4], bottled.z[:, :4]) and not prefix[:, 4:].any()
    assert bottleneck.config.latent_dim == 6 and bottleneck.codebook_sizes == (15, 15, 15)


def test_nothing_is_learned_stored_or_charged() -> None:
    bottleneck = fsq((8, 5))
    assert bottleneck.state_dict() == {}
    assert bottleneck(drawn(1, 2, 4), sample=True).terms == {}


def test_features_of_another_width_are_projected() -> None:
    bottleneck, h = fsq((5, 3), width=7), drawn(1, 7, 9)
    expected = fsq((5, 3))(bottleneck.features(h), sample=False).z
    assert torch.equal(bottleneck(h, sample=False).z, expected)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"levels": (2, 5)}, "levels.0: .*greater than or equal to 3, got 2"),
        ({"levels": (256, 256, 3)}, "make 196608 codes, at most 65536 are possible; take fewer"),
        ({"latent_dim": 8}, "latent_dim is not a setting"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        parse(FSQConfig, settings)


def test_a_code_beyond_the_last_is_refused() -> None:
    with pytest.raises(LatentError, match="codebook 0 has codes 0 to 14, got 15"):
        fsq((5, 3)).from_codes(torch.tensor([[[15]]]))
