"""The loss balancer: weights are shares of the gradient, whatever the scale of a loss."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from audiovae.training.balancer import Balancer, BalancerConfig

WEIGHTS = {"a": 3.0, "b": 1.0}


def losses(x_hat: Tensor, scale: float = 1.0) -> dict[str, Tensor]:
    return {"a": scale * x_hat.square().sum(), "b": x_hat.sin().mean()}


def norm(gradient: Tensor) -> Tensor:
    """The mean over items of the norm."""
    return gradient.flatten(1).norm(dim=1).mean()


def test_the_gradient_is_the_published_formula() -> None:
    torch.manual_seed(0)
    balancer = Balancer(BalancerConfig(total_norm=2.0, ema_decay=0.9))
    averages: dict[str, list[float]] = {"a": [0.0, 0.0], "b": [0.0, 0.0]}
    for _ in range(3):
        x_hat = torch.randn(4, 2, 50, requires_grad=True)
        expected = torch.zeros_like(x_hat)
        for name, loss in losses(x_hat).items():
            (g,) = torch.autograd.grad(loss, x_hat)
            total, weight = averages[name]
            averages[name] = [0.9 * total + float(norm(g)), 0.9 * weight + 1]
            mean = averages[name][0] / averages[name][1]
            expected += 2.0 * WEIGHTS[name] / 4.0 * g / mean * 8 / 4  # 8 items' worth, of 4
        found = balancer.gradient(losses(x_hat), WEIGHTS, x_hat)
        balancer.commit()
        torch.testing.assert_close(found, expected)


def test_the_scale_of_a_loss_does_not_matter() -> None:
    x_hat = torch.randn(4, 1, 50, requires_grad=True)
    plain, loud = Balancer(BalancerConfig()), Balancer(BalancerConfig())
    torch.testing.assert_close(
        plain.gradient(losses(x_hat), WEIGHTS, x_hat),
        loud.gradient(losses(x_hat, scale=1e5), WEIGHTS, x_hat),
    )


def test_only_what_was_committed_counts() -> None:
    x_hat = torch.randn(2, 1, 20, requires_grad=True)
    balancer = Balancer(BalancerConfig())
    balancer.gradient(losses(x_hat, scale=1e6), WEIGHTS, x_hat)
    balancer.discard()
    balancer.commit()
    assert balancer.norms == {}
    balancer.gradient(losses(x_hat), WEIGHTS, x_hat)
    balancer.commit()
    (g,) = torch.autograd.grad(losses(x_hat)["a"], x_hat)
    assert balancer.norms["a"] == pytest.approx(float(norm(g)), rel=1e-6)


def test_its_state_comes_back_from_json() -> None:
    x_hat = torch.randn(2, 1, 20, requires_grad=True)
    balancer = Balancer(BalancerConfig())
    balancer.gradient(losses(x_hat), WEIGHTS, x_hat)
    balancer.commit()
    other = Balancer(BalancerConfig())
    other.load_state_dict(balancer.state_dict())
    again = losses(x_hat, scale=3.0)
    torch.testing.assert_close(
        other.gradient(again, WEIGHTS, x_hat), balancer.gradient(again, WEIGHTS, x_hat)
    )


def test_two_processes_with_half_a_batch_each_give_the_gradient_of_the_whole() -> None:
    """DDP takes the mean over processes; the items here have gradients of one length."""
    sound = torch.randn(50)
    x_hat = torch.stack([sound, sound.flip(0), sound.roll(7), sound.roll(20)])[:, None]

    def gradient(part: Tensor) -> Tensor:
        part = part.clone().requires_grad_()
        terms = {"a": part.square().mean(), "b": part.sin().mean()}
        return Balancer(BalancerConfig()).gradient(terms, WEIGHTS, part)

    halves = torch.cat([gradient(x_hat[:2]), gradient(x_hat[2:])])
    torch.testing.assert_close(halves / 2, gradient(x_hat), rtol=1e-4, atol=1e-7)


def test_losses_without_weight_give_no_gradient() -> None:
    x_hat = torch.randn(2, 1, 20, requires_grad=True)
    gradient = Balancer(BalancerConfig()).gradient(losses(x_hat), {"a": 0.0, "b": 0.0}, x_hat)
    assert not gradient.any()
