"""Snake against its formula."""

from __future__ import annotations

import math

import torch

from audiovae.nn.snake import Snake


def test_snake_starts_as_x_plus_sine_squared_and_repeats_with_pi_over_alpha() -> None:
    snake, x = Snake(1), torch.linspace(-3, 3, 31)[None, None]
    torch.testing.assert_close(snake(x), x + torch.sin(x) ** 2)
    with torch.no_grad():
        snake.log_alpha.fill_(1.0)
    period = math.pi / math.e
    torch.testing.assert_close(snake(x + period), snake(x) + period)


def test_ripple_is_one_over_beta_high_in_its_own_channel_only() -> None:
    snake, x = Snake(2), torch.full((1, 2, 1), math.pi / 2)
    with torch.no_grad():
        snake.log_beta[0, 1] = math.log(4.0)
    torch.testing.assert_close((snake(x) - x).flatten(), torch.tensor([1.0, 0.25]))
