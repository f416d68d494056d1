"""Multi-scale discriminator: the waveform at its rate, at half of it, at a quarter (Kumar et al. 2019, sec. 2.3).

    x [B, C, T] -> convolutions over time -> logits;    x -> means of pairs of samples -> the next judge

Defaults are RAVE v2's.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from audiovae.config import Config
from audiovae.losses.discriminators.base import ConvStack, Tap, Verdict, normed

Numbers = tuple[Annotated[int, Field(ge=1)], ...]


class ScaleConfig(Config):
    """How many scales, and the convolutions of each."""

    kind: Literal["scale"] = "scale"
    scales: int = Field(3, ge=1)
    widths: Numbers = Field((96, 192, 384, 768), min_length=1)
    kernel_sizes: Numbers = (15, 15, 15, 15)
    strides: Numbers = (4, 4, 4, 4)
    groups: Numbers = (1, 1, 1, 1)
    last_kernel_size: int = Field(1, ge=1)
    slope: float = Field(0.2, ge=0, lt=1)  # of the leaky ReLU below zero
    tap: Tap = "convolution"

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        for name in ("kernel_sizes", "strides", "groups"):
            if len(getattr(self, name)) != len(self.widths):
                raise ValueError(
                    f"{name} must hold {len(self.widths)} numbers, as widths does, got {getattr(self, name)}"
                )
        return self


class ScaleDiscriminator(nn.Module):
    """x [B, C, T] -> a verdict for each scale, the finest first."""

    def __init__(self, config: ScaleConfig, channels: int) -> None:
        super().__init__()
        self.judges = nn.ModuleList(_judge(config, channels) for _ in range(config.scales))

    def forward(self, x: Tensor) -> list[Verdict]:
        """Judge, halve, judge."""
        verdicts = []
        for number, judge in enumerate(self.judges):
            x = functional.avg_pool1d(x, 2) if number else x
            verdicts.append(judge(x))
        return verdicts


def _judge(config: ScaleConfig, channels: int) -> ConvStack:
    convs, before = [], channels
    for width, size, stride, groups in zip(
        config.widths, config.kernel_sizes, config.strides, config.groups, strict=True
    ):
        convs.append(normed(nn.Conv1d(before, width, size, stride, (size - 1) // 2, groups=groups)))
        before = width
    size = config.last_kernel_size
    last = nn.Conv1d(before, 1, size, padding=(size - 1) // 2)
    return ConvStack(convs, normed(last) if size > 1 else last, slope=config.slope, tap=config.tap)
