"""What the latent costs: the KL of a diagonal normal from the standard normal, as a rate.

kl       sum over the clip of (mu^2 + e^logvar - logvar - 1) / 2, divided by its seconds
free     a dimension whose KL, averaged over batch and frames, is below `free` nats costs `free`: no gradient
         pushes it further down                                                  (Kingma 2016, eq. 15)
"""

from __future__ import annotations

import torch
from torch import Tensor

from audiovae.nn.densities import kl_standard_normal


def kl_per_dimension(mu: Tensor, logvar: Tensor, mask: Tensor | None = None) -> Tensor:
    """KL of each dimension in nats per frame, averaged over batch and frames.  [B, D, F] each -> [D].

    mask [B, F] is False in frames that do not count.
    """
    kind = torch.promote_types(mu.dtype, torch.float32)
    kl = kl_standard_normal(mu.to(kind), logvar.to(kind))
    if mask is None:
        return kl.mean((0, 2))
    return (kl * mask[:, None]).sum((0, 2)) / mask.sum().clamp(min=1)


def kl_rate(
    mu: Tensor, logvar: Tensor, seconds: float, *, free: float = 0.0, mask: Tensor | None = None
) -> Tensor:
    """KL of a clip of this many seconds, in nats per second, averaged over the batch.

    mu, logvar [B, D, F].  `free` is in nats per dimension and frame.  Frames where mask [B, F] is False cost nothing.
    """
    per_frame = kl_per_dimension(mu, logvar, mask).clamp(min=free)  # [D]; 0 leaves a KL as it is
    frames = mu.shape[-1] if mask is None else mask.sum() / len(mask)
    return per_frame.sum() * (frames / seconds)
