"""Weight-normed convolutions: the definition, the lengths, and how far a stack of them reaches."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from audiovae.nn.conv import down_conv, inputs_of, same_conv, up_conv


def test_weight_is_scale_times_direction() -> None:
    """w = g v / |v|, the norm over all but the first axis: of a filter, or of a transposed one's input."""
    for conv in (same_conv(3, 4, 7), down_conv(3, 4, 2), up_conv(3, 4, 2)):
        with torch.no_grad():
            conv.parametrizations.weight.original0.fill_(2.5)
        norms = conv.weight.flatten(1).norm(dim=1)
        torch.testing.assert_close(norms, torch.full_like(norms, 2.5))


@pytest.mark.parametrize("stride", range(2, 11))
def test_down_and_up_are_exactly_the_stride_apart(stride: int) -> None:
    x = torch.randn(1, 1, 5 * stride)
    h = down_conv(1, 2, stride)(x)
    assert h.shape == (1, 2, 5)
    assert up_conv(2, 1, stride)(h).shape == x.shape


@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (3, 2), (7, 9)])
def test_same_conv_is_centred(kernel: int, dilation: int) -> None:
    """A filter that is 1 in its middle gives the input back."""
    conv = same_conv(1, 1, kernel, dilation=dilation, bias=False)
    with torch.no_grad():
        conv.parametrizations.weight.original1.zero_()[..., kernel // 2] = 1.0
        conv.parametrizations.weight.original0.fill_(1.0)
    x = torch.randn(1, 1, 50)
    torch.testing.assert_close(conv(x), x)


@pytest.mark.parametrize("stride", range(2, 9))
def test_inputs_of_a_stack_are_those_with_a_gradient(stride: int) -> None:
    """Positive filters cancel nothing, so the gradient of an output is zero just where it cannot see."""
    frames = 12
    stack = nn.Sequential(
        same_conv(1, 1, 3, dilation=2), down_conv(1, 1, stride), up_conv(1, 1, stride)
    )
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.abs_().add_(0.1)
    x = torch.zeros(1, 1, frames * stride, requires_grad=True)
    first, last = 6 * stride, 7 * stride - 1  # the outputs of one frame in the middle
    (gradient,) = torch.autograd.grad(stack(x)[..., first : last + 1].sum(), x)
    seen = torch.nonzero(gradient[0, 0]).flatten().tolist()
    assert inputs_of(stack, first, last) == (seen[0], seen[-1])
