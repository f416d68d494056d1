"""1-D convolutions with weight norm, and how far a stack of them reaches.

Weight norm writes each filter as w = g v / |v| (Salimans & Kingma 2016, eq. 2). The strided pair
follows Oobleck and DAC: a kernel of twice the stride s, padded by half of it, so that s samples
make one frame and one frame makes s samples.
"""

from __future__ import annotations

import math

from torch import nn
from torch.nn.utils.parametrizations import weight_norm


def same_conv(
    in_width: int, out_width: int, kernel: int, *, dilation: int = 1, bias: bool = True
) -> nn.Conv1d:
    """A weight-normed convolution that keeps the length.  [B, in_width, T] -> [B, out_width, T]."""
    padding = dilation * (kernel - 1) // 2
    conv = nn.Conv1d(in_width, out_width, kernel, padding=padding, dilation=dilation, bias=bias)
    normed: nn.Conv1d = weight_norm(conv)
    return normed


def down_conv(in_width: int, out_width: int, stride: int) -> nn.Conv1d:
    """A weight-normed convolution that shortens.  [B, in_width, F * s] -> [B, out_width, F]."""
    padding = math.ceil(stride / 2)
    normed: nn.Conv1d = weight_norm(
        nn.Conv1d(in_width, out_width, 2 * stride, stride=stride, padding=padding)
    )
    return normed


def up_conv(in_width: int, out_width: int, stride: int) -> nn.ConvTranspose1d:
    """The mirror of `down_conv`, transposed.  [B, in_width, F] -> [B, out_width, F * s].

    An odd stride gets the one sample back that its padding would cost.
    """
    normed: nn.ConvTranspose1d = weight_norm(
        nn.ConvTranspose1d(
            in_width,
            out_width,
            2 * stride,
            stride=stride,
            padding=math.ceil(stride / 2),
            output_padding=stride % 2,
        )
    )
    return normed


def inputs_of(stack: nn.Module, first: int, last: int) -> tuple[int, int]:
    """The first and the last input position that outputs first..last of a stack depend on.

    Its convolutions count in the order in which they were set, 2-D ones by their last axis. A skip
    connection adds nothing: the branch beside it reaches at least as far. Positions before the sound
    are negative.

    >>> inputs_of(down_conv(1, 1, 4), 0, 0)
    (-2, 5)
    """
    kinds = (nn.Conv1d, nn.ConvTranspose1d, nn.Conv2d, nn.ConvTranspose2d)
    convs = [m for m in stack.modules() if isinstance(m, kinds)]
    for conv in reversed(convs):
        stride, dilation = conv.stride[-1], conv.dilation[-1]
        span = dilation * (conv.kernel_size[-1] - 1)
        padding = int(conv.padding[-1])
        if isinstance(conv, (nn.ConvTranspose1d, nn.ConvTranspose2d)):
            first, last = -((span - padding - first) // stride), (last + padding) // stride
        else:
            first, last = first * stride - padding, last * stride - padding + span
    return first, last
