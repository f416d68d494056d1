"""VQ as its paper has it, and the rotation trick against its matrices."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from audiovae.bottlenecks import VQ, VQConfig, build_bottleneck
from audiovae.bottlenecks.vq import rotation_trick


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def vq(**settings: Any) -> VQ:
    torch.manual_seed(0)
    config = VQConfig(**({"latent_dim": 4, "codebook_size": 16} | settings))
    bottleneck = build_bottleneck(config, None, 10.0)
    assert isinstance(bottleneck, VQ)
    return bottleneck


def test_loss_and_gradients_are_the_paper_s() -> None:
    """reconstruction + |sg[h] - e|^2 + beta |h - sg[e]|^2, with means over numbers (van den Oord 2017, eq. 3)."""
    bottleneck, beta = vq(), 0.25
    h = drawn(2, 4, 30, seed=1).requires_grad_()
    target = drawn(2, 4, 30, seed=2)
    bottled = bottleneck(h, sample=True)
    terms = bottled.terms
    loss = (bottled.z - target).square().sum() + terms["codebook"] + beta * terms["commitment"]
    loss.backward()

    codes = bottleneck.layers[0].codebook.vectors
    flat = h.detach().mT.flatten(0, 1)  # [60, 4]
    nearest = torch.cdist(flat, codes.detach()).argmin(1)
    e = codes.detach()[nearest]
    assert torch.equal(bottled.codes[0], nearest.view(2, 1, 30))
    assert torch.equal(bottled.z, e.view(2, 30, 4).mT)
    mean = (flat - e).square().mean()
    torch.testing.assert_close(terms["codebook"].detach(), mean)
    torch.testing.assert_close(terms["commitment"].detach(), mean)
    straight = 2 * (bottled.z.detach() - target)
    pulled = (beta * 2 * (flat - e) / flat.numel()).view(2, 30, 4).mT
    torch.testing.assert_close(h.grad, straight + pulled)
    towards = torch.zeros(16, 4).index_add_(0, nearest, 2 * (e - flat) / flat.numel())
    torch.testing.assert_close(codes.grad, towards)


def test_by_averages_there_is_no_codebook_term() -> None:
    bottleneck = vq(update="ema")
    assert set(bottleneck(drawn(1, 4, 20), sample=True).terms) == {"commitment"}
    assert list(bottleneck.parameters()) == []


def test_averages_reach_the_means_of_their_frames() -> None:
    """On the same frames again and again, codes go to the means of the frames that choose them: k-means' fixed point."""
    bottleneck = vq(update="ema", decay=0.5)
    h = drawn(4, 4, 100)
    for step in range(40):
        bottleneck(h, sample=True)
        bottleneck.commit(step)
    (codes,) = bottleneck.eval()(h, sample=False).codes
    flat, vectors = h.mT.flatten(0, 1), bottleneck.layers[0].codebook.vectors
    for code in codes.unique():
        torch.testing.assert_close(
            vectors[code], flat[codes.flatten() == code].mean(0), rtol=1e-3, atol=1e-3
        )


def test_the_rotation_turns_and_scales_the_gradient_as_the_code_is_from_the_feature() -> None:
    e, q, sent = drawn(20, 4), drawn(20, 4, seed=1), drawn(20, 4, seed=2)
    e = (e * torch.logspace(-2, 2, 20)[:, None]).double().requires_grad_()
    q, sent = q.double(), sent.double()
    out = rotation_trick(e, q)
    assert torch.equal(out, q)
    (gradient,) = torch.autograd.grad(out, e, sent)
    for row in range(20):
        unit_e, unit_q = (v / v.norm() for v in (e.detach()[row], q[row]))
        r = (unit_e + unit_q) / (unit_e + unit_q).norm()
        turn = torch.eye(4).double() - 2 * torch.outer(r, r) + 2 * torch.outer(unit_q, unit_e)
        torch.testing.assert_close(turn @ unit_e, unit_q)  # a rotation, onto the code
        torch.testing.assert_close(turn @ turn.mT, torch.eye(4).double())
        scale = q[row].norm() / e.detach()[row].norm()
        torch.testing.assert_close(gradient[row], scale * turn.mT @ sent[row])


@pytest.mark.parametrize("e", [[0.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
def test_the_rotation_is_finite_where_there_is_no_plane_to_turn_in(e: list[float]) -> None:
    start = torch.tensor([e]).requires_grad_()
    out = rotation_trick(start, torch.tensor([[1.0, 0.0]]))
    out.sum().backward()
    assert out.tolist() == [[1.0, 0.0]]
    assert start.grad is not None and start.grad.isfinite().all()


def test_a_rotation_changes_gradients_and_no_value() -> None:
    h = drawn(1, 4, 20, seed=1).requires_grad_()
    straight, turned = (
        vq(gradient=gradient)(h, sample=False).z for gradient in ("straight_through", "rotation")
    )
    assert torch.equal(straight, turned)
    sent = drawn(1, 4, 20, seed=2)
    gradients = [torch.autograd.grad(z, h, sent)[0] for z in (straight, turned)]
    torch.testing.assert_close(gradients[0], sent)
    assert not torch.allclose(gradients[1], sent, rtol=0.1)
