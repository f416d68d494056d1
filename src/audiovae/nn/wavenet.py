"""WaveNet: a stack of dilated convolutions whose reach doubles from layer to layer.

    causal, gated    g = tanh(F * h + c) sigmoid(G * h + d)      h <- h + R g      skip <- skip + S g
                     (van den Oord et al. 2016, eq. 3; c and d are the condition's)
    for an encoder   h <- h + R relu(D * relu(h))                (Engel et al. 2017, NSynth, sec. 2.1)

A sample of a causal stack needs only its own inputs and, in each layer, the one from `dilation` samples ago. `Stepper`
keeps these in rings, so that a sample costs O(layers) and not O(receptive field)   (Le Paine et al. 2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from audiovae.nn.conv import same_conv


class DilatedUnit(nn.Module):
    """h + conv 1(relu(dilated conv 3(relu(h)))), not causal.  h [B, W, T]."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.dilated = same_conv(width, width, 3, dilation=dilation)
        self.mix = same_conv(width, width, 1)

    def forward(self, h: Tensor) -> Tensor:
        """h [B, W, T] -> [B, W, T]."""
        out: Tensor = h + self.mix(functional.relu(self.dilated(functional.relu(h))))
        return out


class WaveNet(nn.Module):
    """What comes after some samples, as P numbers for each next one.

    The condition is one vector a frame, added in every layer and before the last one: `condition_width` numbers, which
    hold the biases of what they are added to.
    """

    def __init__(self, width: int, dilations: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.width, self.dilations, self.outputs = width, tuple(dilations), outputs
        self.first = nn.Conv1d(1, width, 1)
        self.layers = nn.ModuleList(
            GatedLayer(width, dilation, last=number == len(dilations))
            for number, dilation in enumerate(dilations, start=1)
        )
        self.head = nn.Conv1d(width, width, 1, bias=False)
        self.last = nn.Conv1d(width, outputs, 1)
        self.condition_widths = [2 * width] * len(dilations) + [width]
        self.condition_width = sum(self.condition_widths)

    def forward(self, s: Tensor, condition: Tensor) -> Tensor:
        """What is said before each of T samples, all at once.

        s [B, T] holds at t the sample before t (0 before the first), condition [B, condition_width, F] with F a
        divisor of T -> [B, P, T].
        """
        *gates, before_last = condition.split(self.condition_widths, dim=1)
        h = self.first(s[:, None])  # [B, W, T]
        skip = torch.zeros_like(h)
        for layer, gate in zip(self.layers, gates, strict=True):
            h, more = layer(h, gate)
            skip = skip + more
        y = _add_frames(self.head(functional.relu(skip)), before_last)
        p: Tensor = self.last(functional.relu(y))
        return p


class GatedLayer(nn.Module):
    """One causal layer.  h [B, W, T] -> what goes on to the next layer and what to the end, [B, W, T] each."""

    def __init__(self, width: int, dilation: int, *, last: bool) -> None:
        super().__init__()
        self.dilation = dilation
        self.taps = nn.Conv1d(width, 2 * width, 2, dilation=dilation, bias=False)
        self.mix = nn.Conv1d(width, width if last else 2 * width, 1)  # after the last, no next one

    def forward(self, h: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
        """h [B, W, T], gate [B, 2 W, F]."""
        y = self.taps(functional.pad(h, (self.dilation, 0)))
        return _passed_on(h, self.mix(_gated(_add_frames(y, gate))))


class Stepper:
    """A WaveNet one sample at a time, with the weights that it has now.  Remembers the past: pieces equal the whole."""

    def __init__(self, net: WaveNet, batch: int) -> None:
        layers = [layer for layer in net.layers if isinstance(layer, GatedLayer)]
        self.net = net
        # [out, in, tap] -> [tap * in, out]: both taps in one product
        self.taps = [layer.taps.weight.detach().permute(2, 1, 0).flatten(0, 1) for layer in layers]
        self.mixes = [_affine(layer.mix) for layer in layers]
        self.first, self.last = _affine(net.first), _affine(net.last)
        self.head = net.head.weight.detach()[..., 0].T
        self.rings = [self.head.new_zeros(d, batch, net.width) for d in net.dilations]
        self.steps = 0

    @torch.no_grad()
    def step(self, s: Tensor, condition: Tensor) -> Tensor:
        """s [B] is the sample before this one, condition [B, condition_width] this one's -> [B, P]."""
        *gates, before_last = condition.split(self.net.condition_widths, dim=1)
        h = torch.addmm(self.first.bias, s[:, None], self.first.weight)  # [B, W]
        skip = torch.zeros_like(h)
        for ring, taps, mix, gate in zip(self.rings, self.taps, self.mixes, gates, strict=True):
            place = self.steps % len(ring)
            y = torch.addmm(gate, torch.cat([ring[place], h], dim=1), taps)
            ring[place] = h
            h, more = _passed_on(h, torch.addmm(mix.bias, _gated(y), mix.weight))
            skip += more
        self.steps += 1
        y = torch.addmm(before_last, functional.relu(skip), self.head)
        return torch.addmm(self.last.bias, functional.relu(y), self.last.weight)


class _Affine(NamedTuple):
    """A convolution of one tap, for rows."""

    weight: Tensor  # [in, out]
    bias: Tensor  # [out]


def _affine(conv: nn.Conv1d) -> _Affine:
    bias = conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias
    return _Affine(conv.weight.detach()[..., 0].T, bias.detach())


def _gated(y: Tensor) -> Tensor:
    """[B, 2 W, ...] -> tanh of the first half times sigmoid of the second, [B, W, ...]."""
    a, b = y.chunk(2, dim=1)
    return torch.tanh(a) * torch.sigmoid(b)


def _passed_on(h: Tensor, mixed: Tensor) -> tuple[Tensor, Tensor]:
    """A layer's end: mixed [B, W or 2 W, ...] is for the stack's end, and, but in the last layer, for the next one."""
    skip, *residual = mixed.split(h.shape[1], dim=1)
    return (h + residual[0] if residual else h), skip


def _add_frames(h: Tensor, frames: Tensor) -> Tensor:
    """Add to T samples what F frames say, each to its T / F samples.  h [B, W, T], frames [B, W, F]."""
    each: Tensor = h.unflatten(2, (frames.shape[2], -1))  # [B, W, F, T / F]
    return (each + frames[..., None]).flatten(2)
