"""A pre-norm transformer stack over frames or tokens (Vaswani et al. 2017; pre-norm: Xiong et al. 2020).

    x = x + scale * Attention(LayerNorm(x)),    x = x + scale * W2 gelu(W1 LayerNorm(x))

Positions enter as rotations of queries and keys (RoPE: Su et al. 2021, eq. 34, the halves of a head paired), so that
only distances count. With a window every position sees itself and window - 1 neighbours behind it (and ahead, if not
causal), and time and memory grow linearly with the length. LayerScale: Touvron et al. 2021, eq. 3.

A condition needs no layer of its own: put its embeddings before the sequence, or add them to it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from audiovae.config import Config
from audiovae.errors import ConfigError

FEWEST_QUERIES = (
    64  # looked up at a time under a window: fewer and the calls cost more than the work
)


class TransformerConfig(Config):
    """What a stack is made of."""

    width: int = Field(512, ge=2)  # W
    layers: int = Field(8, ge=1)
    heads: int = Field(8, ge=1)
    hidden: int = Field(2048, ge=1)  # width of the MLP
    causal: bool = True
    window: int | None = Field(None, ge=1)  # positions that one sees on a side, itself among them
    layer_scale: float | None = None  # at the start; 0.01 suits deep stacks, None: no LayerScale
    bias: bool = True  # of the linear layers
    rope_base: float = Field(10_000.0, gt=1)  # positions in a turn of the slowest pair / 2 pi

    @model_validator(mode="after")
    def _even_heads(self) -> TransformerConfig:
        if self.width % (2 * self.heads):
            raise ValueError(
                f"width must be a multiple of twice the heads, got {self.width} for {self.heads} heads"
            )
        return self

    @property
    def reach(self) -> int | None:
        """Positions behind (and ahead, if not causal) that the whole stack sees; None: all."""
        return None if self.window is None else self.layers * (self.window - 1)


class LayerState(NamedTuple):
    """The keys and values of a layer's past positions, the last window - 1 of them."""

    keys: Tensor  # [B, heads, S, W / heads], rotated
    values: Tensor  # [B, heads, S, W / heads]


class TransformerState(NamedTuple):
    """What `step` carries from call to call."""

    position: int  # of the next input
    layers: tuple[LayerState, ...]


class Transformer(nn.Module):
    """x [B, L, W] -> [B, L, W].  There is no norm at the end: a head brings its own."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.layers))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x [B, L, W] -> [B, L, W].

        `mask` [B, L] is True where there is an input; nothing sees a position where it is False.
        """
        rotation = rotations(x.shape[1], 0, self.config, x.device)
        for layer in self.layers:
            x, _ = layer(x, rotation, mask, None)
        return x

    def initial_state(self, batch: int) -> TransformerState:
        """The state before the first `step`.  Raises ConfigError unless the stack is causal."""
        config = self.config
        if not config.causal:
            raise ConfigError(
                "a transformer that is not causal cannot run step by step; set causal to true"
            )
        empty = next(self.parameters()).new_zeros(
            batch, config.heads, 0, config.width // config.heads
        )
        return TransformerState(0, (LayerState(empty, empty),) * config.layers)

    def step(self, x: Tensor, state: TransformerState) -> tuple[Tensor, TransformerState]:
        """The next positions: all steps together equal `forward`.  x [B, any L, W] -> [B, L, W], state."""
        rotation = rotations(x.shape[1], state.position, self.config, x.device)
        states = []
        for layer, past in zip(self.layers, state.layers, strict=True):
            x, past = layer(x, rotation, None, past)
            states.append(past)
        return x, TransformerState(state.position + x.shape[1], tuple(states))


class TransformerLayer(nn.Module):
    """Attention and MLP, each normed before, scaled and added after."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = Attention(config)
        self.attention_scale = LayerScale(config.width, config.layer_scale)
        self.mlp_norm = nn.LayerNorm(config.width)
        self.expand = nn.Linear(config.width, config.hidden, bias=config.bias)
        self.project = nn.Linear(config.hidden, config.width, bias=config.bias)
        self.mlp_scale = LayerScale(config.width, config.layer_scale)
        if config.layer_scale is None:  # each of the 2 n branches adds its share (GPT-2, sec. 2.3)
            with torch.no_grad():
                self.attention.output.weight.mul_((2 * config.layers) ** -0.5)
                self.project.weight.mul_((2 * config.layers) ** -0.5)

    def forward(
        self, x: Tensor, rotation: Tensor, mask: Tensor | None, past: LayerState | None
    ) -> tuple[Tensor, LayerState]:
        """x [B, L, W] -> [B, L, W] and the keys and values to go on from."""
        h, state = self.attention(self.attention_norm(x), rotation, mask, past)
        x = x + self.attention_scale(h)
        h = self.project(gelu(self.expand(self.mlp_norm(x))))
        return x + self.mlp_scale(h), state


class Attention(nn.Module):
    """Each position asks, those that it may see answer."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.query = nn.Linear(config.width, config.width, bias=config.bias)
        self.key = nn.Linear(config.width, config.width, bias=config.bias)
        self.value = nn.Linear(config.width, config.width, bias=config.bias)
        self.output = nn.Linear(config.width, config.width, bias=config.bias)

    def forward(
        self, x: Tensor, rotation: Tensor, mask: Tensor | None, past: LayerState | None
    ) -> tuple[Tensor, LayerState]:
        """x [B, L, W] -> [B, L, W] and the keys and values to go on from."""
        causal, window = self.config.causal, self.config.window
        q = rotate(self._heads(self.query(x)), rotation)
        k = rotate(self._heads(self.key(x)), rotation)
        v = self._heads(self.value(x))
        if past is not None:
            k, v = torch.cat([past.keys, k], dim=2), torch.cat([past.values, v], dim=2)
        h = attend(q, k, v, causal=causal, window=window, mask=mask)
        kept = k.shape[2] if window is None else min(window - 1, k.shape[2])
        state = LayerState(k[:, :, k.shape[2] - kept :], v[:, :, k.shape[2] - kept :])
        return self.output(h.transpose(1, 2).flatten(2)), state

    def _heads(self, h: Tensor) -> Tensor:
        """[B, L, W] -> [B, heads, L, W / heads]."""
        heads: Tensor = h.unflatten(2, (self.config.heads, -1))
        return heads.transpose(1, 2)


class LayerScale(nn.Module):
    """A gain for each channel, or none.  [..., W] -> [..., W]."""

    def __init__(self, width: int, start: float | None) -> None:
        super().__init__()
        self.scale = None if start is None else nn.Parameter(torch.full((width,), start))

    def forward(self, x: Tensor) -> Tensor:
        """Scale each channel."""
        return x if self.scale is None else self.scale * x


def rotations(length: int, first: int, config: TransformerConfig, device: torch.device) -> Tensor:
    """Cosines and sines [2, length, W / heads / 2] of the angles p / base^(2 i / d), p from `first` on."""
    head_width = config.width // config.heads
    exponents = torch.arange(0, head_width, 2, device=device).float() / head_width
    positions = torch.arange(first, first + length, device=device).float()
    angles = positions[:, None] * (1.0 / config.rope_base**exponents)
    return torch.stack([angles.cos(), angles.sin()])


def rotate(h: Tensor, rotation: Tensor) -> Tensor:
    """Turn each pair (i, i + d / 2) of a head by its position's angle.  [B, heads, L, d] -> the same."""
    cos, sin = rotation.to(h.dtype)
    a, b = h.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool, window: int | None, mask: Tensor | None
) -> Tensor:
    """Attention of the last L of S positions to all that they may see.

    q [B, heads, L, d], k and v [B, heads, S, d], mask [B, S] or None -> [B, heads, L, d]. Under a window the queries
    go in blocks, each with the keys in its reach only.
    """
    length, total = q.shape[2], k.shape[2]
    past = total - length
    if window is None and mask is None and (not causal or length == 1 or past == 0):
        return scaled_dot_product_attention(q, k, v, is_causal=causal and length > 1)
    block = length if window is None else max(window, FEWEST_QUERIES)
    parts = []
    for first in range(0, length, block):
        last = min(first + block, length)
        low = 0 if window is None else max(0, past + first - window + 1)
        ahead = 0 if causal else total if window is None else window - 1
        high = min(total, past + last + ahead)
        seen = visible(range(past + first, past + last), range(low, high), causal, window, mask)
        keys, values = k[:, :, low:high], v[:, :, low:high]
        parts.append(
            scaled_dot_product_attention(
                q[:, :, first:last], keys, values, attn_mask=seen.to(q.device)
            )
        )
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def visible(
    rows: range, columns: range, causal: bool, window: int | None, mask: Tensor | None
) -> Tensor:
    """Which columns each row may see: bool [rows, columns], with a mask [B, 1, rows, columns]."""
    device = None if mask is None else mask.device
    at = torch.arange(rows.start, rows.stop, device=device)[:, None]
    behind = at - torch.arange(columns.start, columns.stop, device=device)  # [rows, columns]
    seen = behind >= 0 if causal else torch.ones_like(behind, dtype=torch.bool)
    if window is not None:
        seen = seen & (behind.abs() < window)
    if mask is not None:  # a row always sees itself: a softmax over nothing is not a number
        there = mask[:, None, None, columns.start : columns.stop]
        seen = (seen & there) | (behind == 0)
    return seen
