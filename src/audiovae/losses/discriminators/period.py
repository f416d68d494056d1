"""Multi-period discriminator: every p-th sample stands beside the others in a picture of width p (Kong et al. 2020, sec. 2.3).

    x [B, C, T] -> [B, C, T / p, p] -> convolutions over time alone, the same in every column

Defaults are DAC's; RAVE's differs in widths, strides and in where its features are taken.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from audiovae.config import Config
from audiovae.losses.discriminators.base import ConvStack, Tap, Verdict, normed


class PeriodConfig(Config):
    """Which periods, and the convolutions of each."""

    kind: Literal["period"] = "period"
    periods: tuple[Annotated[int, Field(ge=1)], ...] = Field((2, 3, 5, 7, 11), min_length=1)
    widths: tuple[Annotated[int, Field(ge=1)], ...] = Field((32, 128, 512, 1024, 1024))
    strides: tuple[Annotated[int, Field(ge=1)], ...] = Field((3, 3, 3, 3, 1))
    kernel_size: int = Field(5, ge=1)
    last_kernel_size: int = Field(3, ge=1)
    slope: float = Field(0.1, ge=0, lt=1)  # of the leaky ReLU below zero
    padding: Literal["reflect", "constant"] = "reflect"  # of the last, incomplete row
    tap: Tap = "activation"

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if len(self.strides) != len(self.widths):
            raise ValueError(
                f"strides must hold {len(self.widths)} numbers, as widths does, got {self.strides}"
            )
        return self


class PeriodDiscriminator(nn.Module):
    """x [B, C, T] -> a verdict for each period."""

    def __init__(self, config: PeriodConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        self.judges = nn.ModuleList(_judge(config, channels) for _ in config.periods)

    def forward(self, x: Tensor) -> list[Verdict]:
        """Fold and judge."""
        folded = [_fold(x, period, self.config.padding) for period in self.config.periods]
        return [judge(rows) for judge, rows in zip(self.judges, folded, strict=True)]


def _judge(config: PeriodConfig, channels: int) -> ConvStack:
    size, convs = config.kernel_size, []
    for before, width, stride in zip(
        (channels, *config.widths[:-1]), config.widths, config.strides, strict=True
    ):
        convs.append(normed(nn.Conv2d(before, width, (size, 1), (stride, 1), ((size - 1) // 2, 0))))
    last = nn.Conv2d(
        config.widths[-1],
        1,
        (config.last_kernel_size, 1),
        padding=((config.last_kernel_size - 1) // 2, 0),
    )
    # RAVE's last convolution, a single product, is without the norm
    last_conv = normed(last) if config.last_kernel_size > 1 else last
    return ConvStack(convs, last_conv, slope=config.slope, tap=config.tap)


def _fold(x: Tensor, period: int, padding: str) -> Tensor:
    """[B, C, T] -> [B, C, rows, period]; DAC's reflection adds a row even where none is missing."""
    missing = period - x.shape[-1] % period
    if padding == "constant":
        missing %= period
    rows: Tensor = functional.pad(x, (0, missing), padding).unflatten(-1, (-1, period))
    return rows
