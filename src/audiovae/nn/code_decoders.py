"""From a latent to the distribution of codes [B, K, N]: all at once, or each after those before it.

    parallel         logits[n, k] = head_k(transformer(condition(z) + place)[n])
    autoregressive   logits[n, k] = head_k(gelu(expand(norm(h[n] + finer(sum over j < k of embed_j(code[j, n]))))))
                     h = causal transformer(condition(z) + place + sum over k of embed_k(code[k, n - 1]))

A code below 0 is one that is not known: padding, the frame before the first, a code that is hidden on purpose.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from audiovae.nn.transformer import Transformer, TransformerConfig

PADDING = -1


class CodeEmbedding(nn.Module):
    """A vector for every code of every codebook, and one for a code that is not known.  [B, K, N] -> [B, K, N, W]."""

    starts: Tensor  # [K, 1], each codebook's first row
    sizes: Tensor  # [K, 1]

    def __init__(self, codebook_sizes: Sequence[int], width: int) -> None:
        super().__init__()
        *starts, total = itertools.accumulate((size + 1 for size in codebook_sizes), initial=0)
        self.register_buffer("starts", torch.tensor(starts)[:, None], persistent=False)
        self.register_buffer("sizes", torch.tensor(codebook_sizes)[:, None], persistent=False)
        self.table = nn.Embedding(total, width)
        nn.init.normal_(self.table.weight, std=len(codebook_sizes) ** -0.5)  # a frame's sum: 1

    def forward(self, codes: Tensor) -> Tensor:
        """Codes [B, K, N] of all K codebooks -> [B, K, N, W]."""
        rows: Tensor = self.starts + torch.where(codes < 0, self.sizes, codes)
        embedded: Tensor = self.table(rows)
        return embedded


class ParallelDecoder(nn.Module):
    """All codes at once.  z [B, D] -> logits [B, N, V] for each of K codebooks."""

    def __init__(
        self, codebook_sizes: Sequence[int], block: int, latent_dim: int, stack: TransformerConfig
    ) -> None:
        super().__init__()
        self.condition = nn.Linear(latent_dim, stack.width)
        self.place = nn.Parameter(torch.randn(block, stack.width))
        self.transformer = Transformer(stack)
        self.norm = nn.LayerNorm(stack.width)
        self.heads = nn.ModuleList(nn.Linear(stack.width, size) for size in codebook_sizes)

    def forward(self, z: Tensor, codes: Tensor | None = None) -> list[Tensor]:
        """z [B, D] -> logits [B, N, V] for each codebook; no code depends on another."""
        h = self.norm(self.transformer(self.condition(z)[:, None] + self.place))
        return [head(h) for head in self.heads]

    def generate(self, z: Tensor) -> Tensor:
        """z [B, D] -> the most likely codes [B, K, N]."""
        return torch.stack([logits.argmax(-1) for logits in self(z)], dim=1)


class AutoregressiveDecoder(nn.Module):
    """Frame by frame, in a frame from coarse to fine.  z [B, D] and codes -> logits [B, N, V] for each of K codebooks."""

    def __init__(
        self, codebook_sizes: Sequence[int], block: int, latent_dim: int, stack: TransformerConfig
    ) -> None:
        super().__init__()
        self.condition = nn.Linear(latent_dim, stack.width)
        self.place = nn.Parameter(0.1 * torch.randn(block, stack.width))
        self.embed = CodeEmbedding(codebook_sizes, stack.width)
        self.transformer = Transformer(stack)
        self.finer = nn.Linear(stack.width, stack.width, bias=False)
        self.norm = nn.LayerNorm(stack.width)
        self.expand = nn.Linear(stack.width, stack.hidden)
        self.heads = nn.ModuleList(nn.Linear(stack.hidden, size) for size in codebook_sizes)

    def forward(self, z: Tensor, codes: Tensor) -> list[Tensor]:
        """z [B, D], codes [B, K, N] to go on from -> logits [B, N, V] for each codebook."""
        embedded = self.embed(codes)  # [B, K, N, W]
        unknown = self.embed(torch.full_like(codes[..., :1], PADDING))
        before = torch.cat([unknown, embedded[:, :, :-1]], dim=2).sum(1)  # [B, N, W]
        h = self.transformer(self.condition(z)[:, None] + self.place + before)
        coarser = functional.pad(embedded[:, :-1].cumsum(1), (0, 0, 0, 0, 1, 0))  # [B, K, N, W]
        inner = self._inner(h[:, None], coarser)  # [B, K, N, hidden]
        return [head(each) for head, each in zip(self.heads, inner.unbind(1), strict=True)]

    def generate(self, z: Tensor) -> Tensor:
        """z [B, D] -> codes [B, K, N], each the most likely after those before it."""
        fixed = self.condition(z)[:, None] + self.place  # [B, N, W]
        codes = torch.full((len(z), len(self.heads), 1), PADDING, device=z.device)
        state, frames = self.transformer.initial_state(len(z)), []
        for n in range(len(self.place)):
            before = self.embed(codes).sum(1)  # [B, 1, W]
            h, state = self.transformer.step(fixed[:, n : n + 1] + before, state)
            codes = self._frame(h)
            frames.append(codes)
        return torch.cat(frames, dim=2)

    def _frame(self, h: Tensor) -> Tensor:
        """h [B, 1, W] -> the codes [B, K, 1] of a frame, coarse to fine."""
        codes = torch.full((len(h), len(self.heads), 1), PADDING, device=h.device)
        known = torch.zeros_like(h)
        for k, head in enumerate(self.heads):
            codes[:, k] = head(self._inner(h, known)).argmax(-1)
            known = known + self.embed(codes)[:, k]
        return codes

    def _inner(self, h: Tensor, coarser: Tensor) -> Tensor:
        """What a head hears: h of the frame and the sum of its coarser codes."""
        return functional.gelu(self.expand(self.norm(h + self.finer(coarser))))
