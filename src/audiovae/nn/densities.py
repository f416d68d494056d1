"""Log-densities and divergences of the normal, in nats, element by element.

log N(x; m, s) = -(x - m)^2 / (2 s^2) - log s - log(2 pi) / 2
KL(N(mu, e^logvar) || N(0, 1)) = (mu^2 + e^logvar - logvar - 1) / 2        (Kingma & Welling 2014, app. B)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def gaussian_log_prob(x: Tensor, mean: Tensor, log_sigma: Tensor) -> Tensor:
    """log N(x; mean, exp(log_sigma)), with all its constants.  Any shapes that broadcast."""
    return (
        -0.5 * ((x - mean) * torch.exp(-log_sigma)).square()
        - log_sigma
        - 0.5 * math.log(2 * math.pi)
    )


def kl_standard_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, e^logvar) || N(0, 1)) of each element, with the one half."""
    return 0.5 * (mu.square() + logvar.exp() - logvar - 1)


def smooth_bound(x: Tensor, low: float, high: float) -> Tensor:
    """Bound x to (low, high) by a scaled tanh: close to x in the middle, a gradient everywhere.

    A hard clamp has no gradient outside and would strand a value there.
    """
    middle, half = (low + high) / 2, (high - low) / 2
    return middle + half * torch.tanh((x - middle) / half)
