"""Discriminators: a sound -> what several judges say of it, each a `Verdict`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from pydantic import Discriminator as Tag
from torch import Tensor, nn

from audiovae.losses.discriminators.bands import BandsConfig, BandsDiscriminator
from audiovae.losses.discriminators.base import Verdict
from audiovae.losses.discriminators.patches import PatchesConfig, PatchesDiscriminator
from audiovae.losses.discriminators.period import PeriodConfig, PeriodDiscriminator
from audiovae.losses.discriminators.scale import ScaleConfig, ScaleDiscriminator
from audiovae.losses.discriminators.stft import StftConfig, StftDiscriminator

__all__ = [
    "DISCRIMINATORS",
    "AnyDiscriminatorConfig",
    "BandsConfig",
    "Discriminators",
    "PatchesConfig",
    "PeriodConfig",
    "ScaleConfig",
    "StftConfig",
    "Verdict",
    "level_free",
]

AnyDiscriminatorConfig = Annotated[
    PeriodConfig | ScaleConfig | StftConfig | BandsConfig | PatchesConfig, Tag("kind")
]

DISCRIMINATORS: dict[str, Callable[..., nn.Module]] = {
    "period": PeriodDiscriminator,
    "scale": ScaleDiscriminator,
    "stft": StftDiscriminator,
    "bands": BandsDiscriminator,
    "patches": PatchesDiscriminator,
}


class Discriminators(nn.Module):
    """Several discriminators as one.  x [B, C, T] -> the verdicts of all their judges."""

    def __init__(
        self,
        configs: Sequence[AnyDiscriminatorConfig],
        channels: int,
        *,
        normalise: bool = False,
    ) -> None:
        """With `normalise` they hear every sound at one level (`level_free`)."""
        super().__init__()
        self.each = nn.ModuleList(DISCRIMINATORS[c.kind](c, channels) for c in configs)
        self.normalise = normalise

    def forward(self, x: Tensor) -> list[Verdict]:
        """Ask them all."""
        x = level_free(x) if self.normalise else x
        return [verdict for discriminator in self.each for verdict in discriminator(x)]


def level_free(x: Tensor) -> Tensor:
    """Each channel without its mean, its peak brought to 0.8, as DAC's discriminators hear it.  [B, C, T]."""
    x = x - x.mean(-1, keepdim=True)
    peak: Tensor = torch.amax(x.abs(), -1, keepdim=True)
    return 0.8 * x / (peak + 1e-9)
