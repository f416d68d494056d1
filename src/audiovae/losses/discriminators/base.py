"""What a discriminator says of a sound, and the stack of convolutions that nearly all of them end in.

A discriminator is several judges, each of which looks at the sound in its own way: folded by a period, at a lower rate,
as a spectrum, in bands of one. A judge gives a number for every place that it looks at, the higher the more real, and
what its layers saw on the way, which feature matching compares (Larsen et al. 2016; Kumar et al. 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

# where a layer is tapped for feature matching: after its activation, or before it
Tap = Literal["activation", "convolution"]


class Verdict(NamedTuple):
    """What one judge says of a batch of sounds."""

    logits: Tensor  # of any shape, a number for each place; higher is more real
    features: tuple[Tensor, ...]  # of its layers, the first one first


class ConvStack(nn.Module):
    """Weight-normed convolutions with leaky ReLUs between, and a last one to the logits."""

    def __init__(
        self, convs: Sequence[nn.Module], last: nn.Module, *, slope: float, tap: Tap
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(convs)
        self.last = last
        self.slope, self.tap = slope, tap

    def features(self, h: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What the last layer would be given, and what the layers saw."""
        seen = []
        for conv in self.convs:
            before = conv(h)
            h = functional.leaky_relu(before, self.slope)
            seen.append(h if self.tap == "activation" else before)
        return h, seen

    def forward(self, h: Tensor) -> Verdict:
        """h [B, W, ...] -> its verdict; tapped at the convolutions, the logits are a feature too."""
        h, seen = self.features(h)
        logits = self.last(h)
        return Verdict(logits, (*seen, logits) if self.tap == "convolution" else tuple(seen))


def normed(conv: nn.Module) -> nn.Module:
    """The convolution, its filters written as length times direction (Salimans & Kingma 2016)."""
    with_norm: nn.Module = weight_norm(conv)
    return with_norm
