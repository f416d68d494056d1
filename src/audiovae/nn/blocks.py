"""Blocks at the frame rate: mix over time by a short depth-wise convolution, over channels by an MLP.

    y = x + gamma * W2 gelu(W1 LayerNorm(depthwise(x)))                       (ConvNeXt: Liu et al. 2022, sec. 2)

Activations are rows [B, F, W], so that both products are plain matrix products. Nothing here takes a statistic over
frames or over the batch: a chunk equals the whole, an item equals itself in any batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class FrameBlock(nn.Module):
    """Depth-wise convolution, LayerNorm, MLP, scaled and added.  x [B, F, W] -> [B, F, W]."""

    def __init__(self, width: int, kernel_size: int, expansion: float, causal: bool) -> None:
        super().__init__()
        hidden = round(width * expansion)
        self.mix = DepthwiseFrames(width, kernel_size, causal)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, hidden)
        self.project = nn.Linear(hidden, width)
        self.gamma = nn.Parameter(
            torch.full((width,), 0.1)
        )  # small: a deep stack starts near identity

    def forward(self, x: Tensor) -> Tensor:
        """x [B, F, W] -> [B, F, W]."""
        h = self.expand(self.norm(self.mix(x)))
        return torch.addcmul(x, self.project(functional.gelu(h, approximate="tanh")), self.gamma)


class DepthwiseFrames(nn.Module):
    """Convolution over frames, each channel by itself, zero beyond the ends.  [B, F, W] -> [B, F, W]."""

    def __init__(self, width: int, kernel_size: int, causal: bool) -> None:
        super().__init__()
        self.left, self.right = frame_margins(kernel_size, causal)
        self.weight = nn.Parameter(torch.randn(kernel_size, width) * kernel_size**-0.5)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """x [B, F, W] -> [B, F, W]."""
        return _depthwise(functional.pad(x, (0, 0, self.left, self.right)), self.weight, self.bias)


def frame_margins(kernel_size: int, causal: bool) -> tuple[int, int]:
    """Frames before and after its own that a kernel sees."""
    return (kernel_size - 1, 0) if causal else ((kernel_size - 1) // 2, kernel_size // 2)


class _Depthwise(torch.autograd.Function):
    """K multiply-adds on shifted views.

    Rows stay where they are, where torch's grouped conv1d would reorder them there and back; on a CPU that makes it and
    its backward the slower way.
    """

    @staticmethod
    def forward(ctx: Any, padded: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """padded [B, F + K - 1, W], weight [K, W], bias [W] -> [B, F, W]."""
        ctx.save_for_backward(padded, weight)
        n_frames = padded.shape[1] - len(weight) + 1
        y = torch.addcmul(bias, padded[:, :n_frames], weight[0])
        for k in range(1, len(weight)):
            y.addcmul_(padded[:, k : k + n_frames], weight[k])
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The transposes of the forward pass."""
        padded, weight = ctx.saved_tensors
        n_frames, grad_padded = grad.shape[1], torch.zeros_like(padded)
        for k in range(len(weight)):
            grad_padded[:, k : k + n_frames].addcmul_(grad, weight[k])
        shifted = (padded[:, k : k + n_frames] for k in range(len(weight)))
        grad_weight = torch.stack([(part * grad).sum((0, 1)) for part in shifted])
        return grad_padded, grad_weight, grad.sum((0, 1))


def _depthwise(padded: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The function above, typed."""
    y: Tensor = _Depthwise.apply(padded, weight, bias)  # type: ignore[no-untyped-call]
    return y
