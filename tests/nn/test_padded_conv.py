"""Convolutions that pad by themselves: what they pad, what they cut, and the norm over time."""

from __future__ import annotations

import pytest
import torch

from audiovae.nn.padded_conv import Conv, ConvForm, TransposedConv, pad


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("stride", [2, 3, 5, 8])
def test_any_length_is_rounded_up_to_frames_and_comes_back(stride: int, causal: bool) -> None:
    form = ConvForm(causal=causal)
    down = Conv(form, 1, 2, 2 * stride, stride=stride)
    up = TransposedConv(form, 2, 1, 2 * stride, stride=stride)
    for length in (1, stride - 1, stride, stride + 1, 4 * stride + 2):
        frames = -(-length // stride)
        h = down(torch.randn(1, 1, length))
        assert h.shape == (1, 2, frames)
        assert up(h).shape == (1, 1, frames * stride)


@pytest.mark.parametrize(
    ("x", "left", "right", "mode", "expected"),
    [
        ([1, 2, 3], 2, 1, "reflect", [3, 2, 1, 2, 3, 2]),
        ([1, 2, 3], 2, 1, "replicate", [1, 1, 1, 2, 3, 3]),
        ([1, 2, 3], 2, 1, "constant", [0, 0, 1, 2, 3, 0]),
        # too short: followed by silence for the reflection, which is cut off again
        ([1, 2], 3, 0, "reflect", [0, 0, 2, 1, 2]),
        ([5], 2, 2, "reflect", [0, 0, 5, 0, 0]),
    ],
)
def test_padding(x: list[int], left: int, right: int, mode: str, expected: list[int]) -> None:
    padded = pad(torch.tensor([[x]], dtype=torch.float32), left, right, mode)  # type: ignore[arg-type]
    assert padded[0, 0].tolist() == expected


def test_the_up_stages_undo_the_shift_of_the_down_stages() -> None:
    """An impulse in the middle of a frame comes back within it from filters that are one everywhere."""
    form = ConvForm(causal=False, norm="none", padding="constant")
    for stride in (2, 3):
        down = Conv(form, 1, 1, 2 * stride, stride=stride, bias=False)
        up = TransposedConv(form, 1, 1, 2 * stride, stride=stride, bias=False)
        with torch.no_grad():
            down.conv.weight.fill_(1.0)
            up.conv.weight.copy_(down.conv.weight)
        x, y = torch.randn(1, 1, 10 * stride), torch.randn(1, 1, 10 * stride)
        adjoint = (down(x) * down(y)).sum()  # <Ax, Ay> = <A'Ax, y>, A' the transposed conv
        torch.testing.assert_close((up(down(x)) * y).sum(), adjoint)


def test_group_norm_takes_one_statistic_over_channels_and_time() -> None:
    conv = Conv(ConvForm(causal=False, norm="group"), 1, 3, 3)
    y = conv(torch.randn(2, 1, 50))
    torch.testing.assert_close(y.mean((1, 2)), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(y.square().mean((1, 2)), torch.ones(2), atol=1e-3, rtol=0)
