"""Both Snakes against their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from audiovae.nn.snake import Snake, SnakeBeta


@pytest.mark.parametrize("kind", [Snake, SnakeBeta])
def test_snake_starts_as_x_plus_sine_squared(kind: type[nn.Module]) -> None:
    x = torch.linspace(-3, 3, 31)[None, None]
    torch.testing.assert_close(kind(1)(x), x + torch.sin(x) ** 2)


def test_snake_repeats_with_pi_over_alpha_and_is_one_over_alpha_high() -> None:
    snake, x = Snake(2), torch.linspace(-1, 1, 31)[None, None].expand(1, 2, 31)
    with torch.no_grad():
        snake.alpha[0, 1] = 4.0
    torch.testing.assert_close(snake(x + math.pi)[:, :1], snake(x)[:, :1] + math.pi)
    torch.testing.assert_close(snake(x + math.pi / 4)[:, 1:], snake(x)[:, 1:] + math.pi / 4)
    top = torch.tensor([math.pi / 2, math.pi / 8]).reshape(1, 2, 1)
    torch.testing.assert_close((snake(top) - top).flatten(), torch.tensor([1.0, 0.25]))


def test_snake_beta_repeats_with_pi_over_alpha() -> None:
    snake, x = SnakeBeta(1), torch.linspace(-3, 3, 31)[None, None]
    with torch.no_grad():
        snake.log_alpha.fill_(1.0)
    period = math.pi / math.e
    torch.testing.assert_close(snake(x + period), snake(x) + period)


def test_ripple_is_one_over_beta_high_in_its_own_channel_only() -> None:
    snake, x = SnakeBeta(2), torch.full((1, 2, 1), math.pi / 2)
    with torch.no_grad():
        snake.log_beta[0, 1] = math.log(4.0)
    torch.testing.assert_close((snake(x) - x).flatten(), torch.tensor([1.0, 0.25]))
