"""What the latent costs: the KL of a diagonal normal from the standard normal, as a rate.

kl       sum over the clip of (mu^2 + e^logvar - logvar - 1) / 2, divided by its seconds
free     a dimension whose KL, averaged over batch and frames, is below `free` nats costs `free`: no gradient
         pushes it further down                                                  (Kingma 2016, eq. 15)
"""

from __future__ import annotations

import torch
from torch import Tensor

from audiovae.nn.densities import kl_standard_normal


def kl_per_dimension(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL of each dimension in nats per frame, averaged over batch and frames.  [B, D, F] each -> [D]."""
    kind = torch.promote_types(mu.dtype, torch.float32)
    return kl_standard_normal(mu.to(kind), logvar.to(kind)).mean((0, 2))


def kl_rate(mu: Tensor, logvar: Tensor, seconds: float, *, free: float = 0.0) -> Tensor:
    """KL of a clip of this many seconds, in nats per second, averaged over the batch.

    mu, logvar [B, D, F].  `free` is in nats per dimension and frame.
    """
    per_frame = kl_per_dimension(mu, logvar).clamp(min=free)  # [D]; 0 leaves a KL as it is
    return per_frame.sum() * (mu.shape[-1] / seconds)
