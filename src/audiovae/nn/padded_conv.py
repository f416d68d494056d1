"""Convolutions that pad by themselves: T samples become ceil(T / stride) frames, F frames become F * stride samples.

As EnCodec's do (Défossez et al. 2022), causal or not, with the padding and the norm that a family asks for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from audiovae.config import Config

Norm = Literal["none", "weight", "group"]
Padding = Literal["constant", "reflect", "replicate"]
AnyConv = TypeVar("AnyConv", nn.Conv1d, nn.ConvTranspose1d)


class ConvForm(Config):
    """What all convolutions of a net have in common."""

    causal: bool = True  # no output sees a later input
    norm: Norm = (
        "weight"  # "group" takes its statistics over channels and time, so over later inputs too
    )
    padding: Padding = "reflect"  # "constant" is silence


class Conv(nn.Module):
    """A convolution that pads by itself.  h [B, in_width, T] -> [B, out_width, ceil(T / stride)]."""

    def __init__(
        self,
        form: ConvForm,
        in_width: int,
        out_width: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.padding = form.padding
        total = dilation * (kernel_size - 1) + 1 - stride
        self.right = 0 if form.causal else total // 2
        self.left = total - self.right
        self.conv = _weight_normed(
            nn.Conv1d(in_width, out_width, kernel_size, stride, dilation=dilation, bias=bias),
            form.norm,
        )
        self.norm = _group_norm(out_width, form.norm)

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
        form: ConvForm,
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
        self.right = total if form.causal else total // 2
        self.left = total - self.right
        self.conv = _weight_normed(
            nn.ConvTranspose1d(in_width, out_width, kernel_size, stride, groups=groups, bias=bias),
            form.norm,
        )
        self.norm = _group_norm(out_width, form.norm)

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
