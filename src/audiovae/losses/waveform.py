"""Losses on the samples themselves.

l1           mean |x_hat - x|
gaussian_nll sum over the clip of -log N(x; x_hat, sigma), divided by its seconds, in nats per second
"""

from __future__ import annotations

import torch
from torch import Tensor

from audiovae.nn.densities import gaussian_log_prob

LOG_SIGMA_FLOOR = (
    -7.0
)  # sigma 0.0009 = -61 dBFS: finer than this a waveform net only learns to be overconfident


def l1(x_hat: Tensor, x: Tensor) -> Tensor:
    """Mean absolute difference.  x_hat, x [B, C, T]."""
    return (x_hat - x).abs().mean()


def gaussian_nll(
    x_hat: Tensor,
    x: Tensor,
    log_sigma: Tensor,
    sample_rate: int,
    *,
    log_sigma_floor: float = LOG_SIGMA_FLOOR,
) -> Tensor:
    """Negative Gaussian log-density, complete with log sigma and log(2 pi) / 2, in nats per second.

    x_hat, x [B, C, T]; log_sigma broadcasts to them: a number for a fixed variance, a parameter for a learned one, a
    tensor [B, C, T] for one that the decoder predicts.  It is floored at log_sigma_floor, because the density of a
    perfect reconstruction has no upper bound.  The gradient of a log sigma below the floor is passed on where it would raise it.
    The sum over channels and samples of an item is divided by its seconds, then averaged over the batch.
    """
    kind = torch.promote_types(x.dtype, torch.float32)
    floored = _Floor.apply(log_sigma.to(kind), log_sigma_floor)  # type: ignore[no-untyped-call]
    log_prob = gaussian_log_prob(x.to(kind), x_hat.to(kind), floored)  # [B, C, T]
    return -log_prob.sum((1, 2)).mean() * (sample_rate / x.shape[-1])


class _Floor(torch.autograd.Function):
    """max(x, low) that passes the gradient where x is above low or would be moved up."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, low: float) -> Tensor:
        ctx.below = x < low  # type: ignore[attr-defined]
        return x.clamp(min=low)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        return torch.where(ctx.below & (grad > 0), 0.0, grad), None  # type: ignore[attr-defined]
