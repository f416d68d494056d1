"""Snake: an activation that can hold a period (Ziyin et al. 2020, arXiv 2006.08195).

Snake       y = x + sin(alpha x)^2 / (alpha + 1e-9),  by channel                                      (DAC)
SnakeBeta   y = x + sin(alpha x)^2 / (beta + 1e-9),   alpha = e^log_alpha, beta = e^log_beta   (BigVGAN, Oobleck)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Snake(nn.Module):
    """One dial for the ripple's period and height.  x [B, W, T] -> y [B, W, T]; alpha starts at 1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Add a ripple of period pi / alpha and height 1 / alpha to the identity."""
        return x + (self.alpha + 1e-9).reciprocal() * torch.sin(self.alpha * x).square()


class SnakeBeta(nn.Module):
    """Two dials, both logarithmic.  x [B, W, T] -> y [B, W, T]; alpha and beta start at 1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.log_alpha = nn.Parameter(torch.zeros(1, width, 1))
        self.log_beta = nn.Parameter(torch.zeros(1, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Add a ripple of period pi / alpha and height 1 / beta to the identity."""
        ripple = torch.sin(self.log_alpha.exp() * x).square()
        return x + (self.log_beta.exp() + 1e-9).reciprocal() * ripple
