"""Gaussian bottleneck: a diagonal normal over the latent.

    z = mu + exp(logvar / 2) * eps
    KL(q || N(0, I)) = (mu^2 + e^logvar - logvar - 1) / 2   per element

(Kingma & Welling 2014, eq. 10 and app. B.) Beside mu the net gives logvar, bounded smoothly, or
with "softplus" the scale of Stable Audio: exp(logvar / 2) = softplus(scale) + 1e-4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from audiovae.bottlenecks.base import Bottled, Bottleneck
from audiovae.config import Config
from audiovae.nn.densities import kl_standard_normal, smooth_bound
from audiovae.nn.noise import standard_normal

START_LOGVAR = -6.0  # sigma 0.05: behind more noise a decoder first learns to ignore the latent


class GaussianConfig(Config):
    """A diagonal normal over the latent."""

    kind: Literal["gaussian"] = "gaussian"
    latent_dim: int = Field(64, ge=1)  # D; 8 to 128 suits music
    parametrisation: Literal["logvar", "softplus"] = "logvar"  # what the net gives for sigma
    logvar_range: tuple[float, float] = (
        -12.0,
        4.0,
    )  # smooth; sigma from 0.0025 to 7.4


class Gaussian(Bottleneck):
    """h [B, W, F] -> mu, logvar -> z [B, D, F].  With width None, h is the moments [B, 2 D, F]."""

    def __init__(self, config: GaussianConfig, width: int | None, frame_rate: float) -> None:
        super().__init__()
        self.config = config
        self.frame_rate = frame_rate  # frames per second: makes the KL a rate
        self.moments: nn.Module = nn.Identity()
        if width is not None:
            self.moments = projection = nn.Conv1d(width, 2 * config.latent_dim, 1)
            if projection.bias is not None and config.parametrisation == "logvar":
                nn.init.constant_(projection.bias[config.latent_dim :], START_LOGVAR)

    def forward(
        self, h: Tensor, *, sample: bool, generators: Sequence[torch.Generator] = ()
    ) -> Bottled:
        """Draw the latent, or take its mean.  h [B, W, F] -> z [B, D, F]; kl in nats per second."""
        mu, spread = self.moments(h).float().chunk(2, dim=1)  # [B, D, F] each
        logvar = self._logvar(spread)
        z = mu + (logvar / 2).exp() * standard_normal(mu, generators) if sample else mu
        kl = kl_standard_normal(mu, logvar).sum(1).mean() * self.frame_rate
        return Bottled(z=z, codes=(), moments=(mu, logvar), terms={"kl": kl})

    def _logvar(self, spread: Tensor) -> Tensor:
        """The log variance that the net's second number stands for."""
        if self.config.parametrisation == "softplus":
            return 2 * (nn.functional.softplus(spread) + 1e-4).log()
        return smooth_bound(spread, *self.config.logvar_range)
