"""Snake: an activation that can hold a period (Ziyin et al. 2020).

    y = x + sin(alpha x)^2 / (beta + 1e-9),    alpha = e^log_alpha, beta = e^log_beta, by channel

The form with two dials is BigVGAN's and Oobleck's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Snake(nn.Module):
    """x [B, W, T] -> y [B, W, T]; alpha and beta start at 1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.log_alpha = nn.Parameter(torch.zeros(1, width, 1))
        self.log_beta = nn.Parameter(torch.zeros(1, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Add a ripple of period pi / alpha and height 1 / beta to the identity."""
        ripple = torch.sin(self.log_alpha.exp() * x).square()
        return x + (self.log_beta.exp() + 1e-9).reciprocal() * ripple
