"""SEANet: convolutions that change the rate and the width stage by stage (Tagliasacchi et al. 2020; Défossez et al. 2022, sec. 3.1).

encoder   conv; for each stride a stage of residual units, ELU and a strided conv that doubles the
          width; LSTM; ELU, conv
decoder   conv; LSTM; for each stride, backwards, a stage of ELU, a transposed conv that halves the
          width and residual units; ELU, conv

Each conv pads by itself (padded_conv.py). EnCodec, AudioCraft and Mimi differ in the options of `SeanetConfig` alone.

Where no gradient is wanted, what runs faster than the frame rate is computed piece by piece, each with the inputs around
it that it sees: in one piece, a minute at the rate of the samples takes a gigabyte.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from audiovae.nn.padded_conv import Conv, ConvForm, TransposedConv, inputs_of

PIECE_FRAMES = 64


class SeanetConfig(ConvForm):
    """What the encoder and the decoder are made of, in the encoder's order."""

    width: int = Field(32, ge=1)  # channels beside the waveform; doubled by each stage
    strides: tuple[Annotated[int, Field(ge=2)], ...] = Field((2, 4, 5, 8), min_length=1)
    kernel_size: int = Field(7, ge=1)  # of the first conv
    last_kernel_size: int = Field(7, ge=1)
    residual_kernel_size: int = Field(3, ge=1)
    residual_units: int = Field(1, ge=0)  # of each stage
    dilation_growth: int = Field(
        2, ge=1
    )  # unit number n of a stage has a dilation of this to the n
    compress: int = Field(2, ge=1)  # a residual branch is narrower by this
    shortcut: Literal["conv", "identity"] = "conv"  # beside a residual branch
    lstm_layers: int = Field(2, ge=0)

    @model_validator(mode="after")
    def _branches_have_channels(self) -> Self:
        if self.width < self.compress:
            raise ValueError(
                f"width must be at least compress ({self.compress}), got {self.width}: "
                "a residual branch has width / compress channels"
            )
        return self

    @property
    def hop_length(self) -> int:
        """Samples that one frame stands for."""
        return math.prod(self.strides)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels beside the waveform and after each stage of the encoder."""
        return tuple(self.width * 2**stage for stage in range(len(self.strides) + 1))

    @property
    def dilations(self) -> tuple[int, ...]:
        """Of the residual units of a stage."""
        return tuple(self.dilation_growth**unit for unit in range(self.residual_units))


class Encoder(nn.Module):
    """x [B, C, T], any T >= 1 -> h [B, dim, ceil(T / hop_length)]."""

    def __init__(self, config: SeanetConfig, channels: int, dim: int) -> None:
        super().__init__()
        widths = config.widths
        self.first = Conv(config, channels, widths[0], config.kernel_size)
        self.stages = nn.Sequential(
            *(
                DownStage(config, *of)
                for of in zip(widths[:-1], widths[1:], config.strides, strict=True)
            )
        )
        self.lstm = lstm_of(config)
        self.last = Conv(config, widths[-1], dim, config.last_kernel_size)
        self.hop_length, self.in_pieces = config.hop_length, config.norm != "group"

    def forward(self, x: Tensor) -> Tensor:
        """Shorten while the width grows."""
        h: Tensor = self.lstm(self._shorten(x))
        h = self.last(functional.elu(h))
        return h

    def _shorten(self, x: Tensor) -> Tensor:
        if not self.in_pieces or torch.is_grad_enabled():
            h: Tensor = self.stages(self.first(x))
            return h
        hop, stack = self.hop_length, nn.Sequential(self.first, self.stages)
        first, last = inputs_of(stack, 0, 0)
        left, right = -(first // hop), -(-last // hop)  # frames, rounded up
        parts = []
        for at in range(0, -(-x.shape[-1] // hop), PIECE_FRAMES):
            skip = min(at, left)
            part = x[..., (at - skip) * hop : (at + PIECE_FRAMES + right) * hop]
            parts.append(stack(part)[..., skip : skip + PIECE_FRAMES])
        return torch.cat(parts, dim=-1)


class Decoder(nn.Module):
    """z [B, dim, F] -> x_hat [B, C, F * hop_length]."""

    def __init__(self, config: SeanetConfig, channels: int, dim: int) -> None:
        super().__init__()
        widths = config.widths[::-1]
        self.first = Conv(config, dim, widths[0], config.kernel_size)
        self.lstm = lstm_of(config)
        self.stages = nn.Sequential(
            *(
                UpStage(config, *of)
                for of in zip(widths[:-1], widths[1:], config.strides[::-1], strict=True)
            )
        )
        self.last = Conv(config, widths[-1], channels, config.last_kernel_size)
        self.hop_length, self.in_pieces = config.hop_length, config.norm != "group"

    def forward(self, z: Tensor) -> Tensor:
        """The encoder's way back."""
        return self._lengthen(self.lstm(self.first(z)))

    def _lengthen(self, h: Tensor) -> Tensor:
        stack = nn.Sequential(self.stages, nn.ELU(), self.last)
        if not self.in_pieces or torch.is_grad_enabled():
            x: Tensor = stack(h)
            return x
        hop = self.hop_length
        first, last = inputs_of(stack, 0, hop - 1)
        parts = []
        for at in range(0, h.shape[-1], PIECE_FRAMES):
            skip = min(at, -first)
            part = h[..., at - skip : at + PIECE_FRAMES + last]
            parts.append(stack(part)[..., skip * hop : (skip + PIECE_FRAMES) * hop])
        return torch.cat(parts, dim=-1)


class DownStage(nn.Module):
    """h [B, in_width, T] -> [B, out_width, ceil(T / stride)]."""

    def __init__(self, config: SeanetConfig, in_width: int, out_width: int, stride: int) -> None:
        super().__init__()
        self.units = nn.Sequential(*(ResidualUnit(config, in_width, d) for d in config.dilations))
        self.resample = Conv(config, in_width, out_width, 2 * stride, stride=stride)

    def forward(self, h: Tensor) -> Tensor:
        """Refine, then shorten."""
        h = self.resample(functional.elu(self.units(h)))
        return h


class UpStage(nn.Module):
    """h [B, in_width, F] -> [B, out_width, F * stride]."""

    def __init__(self, config: SeanetConfig, in_width: int, out_width: int, stride: int) -> None:
        super().__init__()
        self.resample = TransposedConv(config, in_width, out_width, 2 * stride, stride=stride)
        self.units = nn.Sequential(*(ResidualUnit(config, out_width, d) for d in config.dilations))

    def forward(self, h: Tensor) -> Tensor:
        """Lengthen, then refine."""
        h = self.units(self.resample(functional.elu(h)))
        return h


class ResidualUnit(nn.Module):
    """shortcut(h) + conv 1(ELU(dilated conv(ELU(h)))).  h [B, W, T]."""

    def __init__(self, config: SeanetConfig, width: int, dilation: int) -> None:
        super().__init__()
        hidden = width // config.compress
        self.conv = Conv(config, width, hidden, config.residual_kernel_size, dilation=dilation)
        self.project = Conv(config, hidden, width, 1)
        self.shortcut = (
            Conv(config, width, width, 1) if config.shortcut == "conv" else nn.Identity()
        )

    def forward(self, h: Tensor) -> Tensor:
        """Add what the branch found."""
        branch = self.project(functional.elu(self.conv(functional.elu(h))))
        out: Tensor = self.shortcut(h) + branch
        return out


class Recurrence(nn.Module):
    """h + LSTM(h), over time.  h [B, W, F]."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, width, layers, batch_first=True)

    def forward(self, h: Tensor) -> Tensor:
        """Add what was remembered."""
        y: Tensor = self.lstm(h.mT)[0].mT
        return h + y


def lstm_of(config: SeanetConfig) -> nn.Module:
    """The recurrence of a config; without layers, none."""
    return (
        Recurrence(config.widths[-1], config.lstm_layers) if config.lstm_layers else nn.Identity()
    )
