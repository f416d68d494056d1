"""SEANet: convolutions that change the rate and the width stage by stage (Tagliasacchi et al. 2020; Défossez et al. 2022, sec. 3.1).

encoder   conv; for each stride a stage of residual units, ELU and a strided conv that doubles the
          width; LSTM; ELU, conv
decoder   conv; LSTM; for each stride, backwards, a stage of ELU, a transposed conv that halves the
          width and residual units; ELU, conv

Each conv pads by itself: T samples become ceil(T / stride) frames, F frames become F * stride samples. EnCodec, AudioCraft
and Mimi differ in the options of `SeanetConfig` alone.

Where no gradient is wanted, what runs faster than the frame rate is computed piece by piece, each with the inputs around
it that it sees: in one piece, a minute at the rate of the samples takes a gigabyte.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal, Self, TypeVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from audiovae.config import Config

Norm = Literal["none", "weight", "group"]
Padding = Literal["constant", "reflect", "replicate"]
PIECE_FRAMES = 64
AnyConv = TypeVar("AnyConv", nn.Conv1d, nn.ConvTranspose1d)


class SeanetConfig(Config):
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
    causal: bool = True  # no output sees a later input
    norm: Norm = (
        "weight"  # "group" takes its statistics over channels and time, so over later inputs too
    )
    padding: Padding = "reflect"  # "constant" is silence

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


class Conv(nn.Module):
    """A convolution that pads by itself.  h [B, in_width, T] -> [B, out_width, ceil(T / stride)]."""

    def __init__(
        self,
        config: SeanetConfig,
        in_width: int,
        out_width: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.padding = config.padding
        total = dilation * (kernel_size - 1) + 1 - stride
        self.right = 0 if config.causal else total // 2
        self.left = total - self.right
        self.conv = _weight_normed(
            nn.Conv1d(in_width, out_width, kernel_size, stride, dilation=dilation, bias=bias),
            config.norm,
        )
        self.norm = _group_norm(out_width, config.norm)

    def forward(self, h: Tensor) -> Tensor:
        """Fill the last stride too, so that no sample is lost."""
        unfilled = -h.shape[-1] % self.conv.stride[0]
        h = self.norm(self.conv(pad(h, self.left, self.right + unfilled, self.padding)))
        return h

    def inputs_of(self, first: int, last: int) -> tuple[int, int]:
        """The first and the last input that outputs first..last depend on."""
        stride, span = self.conv.stride[0], self.conv.dilation[0] * (self.conv.kernel_size[0] - 1)
        return first * stride - self.left, last * stride - self.left + span


class TransposedConv(nn.Module):
    """A transposed convolution cut to its frames.  h [B, in_width, F] -> [B, out_width, F * stride]."""

    def __init__(
        self,
        config: SeanetConfig,
        in_width: int,
        out_width: int,
        kernel_size: int,
        *,
        stride: int,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        total = kernel_size - stride
        self.right = total if config.causal else total // 2
        self.left = total - self.right
        self.conv = _weight_normed(
            nn.ConvTranspose1d(in_width, out_width, kernel_size, stride, groups=groups, bias=bias),
            config.norm,
        )
        self.norm = _group_norm(out_width, config.norm)

    def forward(self, h: Tensor) -> Tensor:
        """Lengthen, then cut what lies beyond the first and the last frame."""
        h = self.norm(self.conv(h))
        return h[..., self.left : h.shape[-1] - self.right]

    def inputs_of(self, first: int, last: int) -> tuple[int, int]:
        """The first and the last input that outputs first..last depend on."""
        stride, span = self.conv.stride[0], self.conv.kernel_size[0] - 1
        return -((span - self.left - first) // stride), (last + self.left) // stride


def pad(h: Tensor, left: int, right: int, mode: Padding) -> Tensor:
    """h [B, W, T] -> [B, W, left + T + right].

    A reflection needs more than it reflects; a sound too short for it is first followed by silence, which is reflected
    too and then cut off.
    """
    if mode != "reflect":
        return functional.pad(h, (left, right), mode)
    lacking = max(0, max(left, right) + 1 - h.shape[-1])
    padded = functional.pad(functional.pad(h, (0, lacking)), (left, right), mode)
    return padded[..., : padded.shape[-1] - lacking]


def inputs_of(stack: nn.Module, first: int, last: int) -> tuple[int, int]:
    """The first and the last input that outputs first..last of a stack depend on through its convolutions.

    They count in the order in which they were set; a shortcut adds nothing to the branch beside it. Positions before
    the sound are negative. Not counted: an LSTM sees all that came before, a group norm the whole sound.
    """
    for conv in reversed(list(_convs(stack))):
        first, last = conv.inputs_of(first, last)
    return first, last


def lstm_of(config: SeanetConfig) -> nn.Module:
    """The recurrence of a config; without layers, none."""
    return (
        Recurrence(config.widths[-1], config.lstm_layers) if config.lstm_layers else nn.Identity()
    )


def _convs(stack: nn.Module) -> Iterator[Conv | TransposedConv]:
    for module in stack.modules():
        if isinstance(module, (Conv, TransposedConv)):
            yield module


def _weight_normed(conv: AnyConv, norm: Norm) -> AnyConv:
    normed: AnyConv = weight_norm(conv) if norm == "weight" else conv
    return normed


def _group_norm(width: int, norm: Norm) -> nn.Module:
    return TimeGroupNorm(1, width) if norm == "group" else nn.Identity()


class TimeGroupNorm(nn.GroupNorm):
    """Normalises each item by its mean and variance over all channels and the whole time.  h [B, W, T]."""

    def forward(self, h: Tensor) -> Tensor:
        """nn.GroupNorm's own refuses one sample of one channel, the end of a sound in a narrow net."""
        return torch.group_norm(h, 1, self.weight, self.bias, self.eps)
