"""The encoder and decoder that Oobleck and DAC share: strided convolutions between dilated residual units.

    encoder   conv 7; for each stride a stage of three residual units (dilations 1, 3, 9), an activation and a
              strided conv; an activation, conv 3
    decoder   conv 7; for each stride a stage of an activation, a transposed conv and three residual units; an
              activation, conv 7

What differs between the two nets is given: the widths, the activation, and whether the last convolution has a bias.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from audiovae.nn.conv import down_conv, same_conv, up_conv

DILATIONS = (1, 3, 9)  # of the three residual units of a stage

Activation = Callable[[int], nn.Module]  # of a width


class WaveformEncoder(nn.Module):
    """x [B, C, F * prod(strides)] -> h [B, out_width, F].

    `widths` has one more entry than `strides`: beside the waveform, then after each stage.
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        strides: Sequence[int],
        out_width: int,
        activation: Activation,
    ) -> None:
        super().__init__()
        steps = zip(widths[:-1], widths[1:], strides, strict=True)
        self.first = same_conv(channels, widths[0], 7)
        self.stages = nn.Sequential(*(DownStage(*step, activation) for step in steps))
        self.snake = activation(widths[-1])
        self.last = same_conv(widths[-1], out_width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Halve, quarter, ... the rate while the width grows."""
        h: Tensor = self.last(self.snake(self.stages(self.first(x))))
        return h


class WaveformDecoder(nn.Module):
    """z [B, in_width, F] -> x_hat [B, C, F * prod(strides)], not limited to [-1, 1].

    `widths` has one more entry than `strides`: beside the latent, then after each stage.
    """

    def __init__(
        self,
        in_width: int,
        widths: Sequence[int],
        strides: Sequence[int],
        channels: int,
        activation: Activation,
        *,
        bias: bool,
    ) -> None:
        super().__init__()
        steps = zip(widths[:-1], widths[1:], strides, strict=True)
        self.first = same_conv(in_width, widths[0], 7)
        self.stages = nn.Sequential(*(UpStage(*step, activation) for step in steps))
        self.snake = activation(widths[-1])
        self.last = same_conv(widths[-1], channels, 7, bias=bias)

    def forward(self, z: Tensor) -> Tensor:
        """The encoder's way back."""
        x_hat: Tensor = self.last(self.snake(self.stages(self.first(z))))
        return x_hat


class DownStage(nn.Module):
    """h [B, in_width, F * stride] -> [B, out_width, F]."""

    def __init__(self, in_width: int, out_width: int, stride: int, activation: Activation) -> None:
        super().__init__()
        self.units = nn.Sequential(*(ResidualUnit(in_width, d, activation) for d in DILATIONS))
        self.snake = activation(in_width)
        self.resample = down_conv(in_width, out_width, stride)

    def forward(self, h: Tensor) -> Tensor:
        """Refine, then shorten."""
        out: Tensor = self.resample(self.snake(self.units(h)))
        return out


class UpStage(nn.Module):
    """h [B, in_width, F] -> [B, out_width, F * stride]."""

    def __init__(self, in_width: int, out_width: int, stride: int, activation: Activation) -> None:
        super().__init__()
        self.snake = activation(in_width)
        self.resample = up_conv(in_width, out_width, stride)
        self.units = nn.Sequential(*(ResidualUnit(out_width, d, activation) for d in DILATIONS))

    def forward(self, h: Tensor) -> Tensor:
        """Lengthen, then refine."""
        out: Tensor = self.units(self.resample(self.snake(h)))
        return out


class ResidualUnit(nn.Module):
    """h + conv 1(activation(dilated conv 7(activation(h)))).  h [B, W, T]."""

    def __init__(self, width: int, dilation: int, activation: Activation) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            activation(width),
            same_conv(width, width, 7, dilation=dilation),
            activation(width),
            same_conv(width, width, 1),
        )

    def forward(self, h: Tensor) -> Tensor:
        """Add what the branch found."""
        out: Tensor = h + self.branch(h)
        return out
