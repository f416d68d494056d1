"""Residual vector quantization: each codebook codes what those before it left over.

    r[1] = h,    q[i] = nearest code to r[i],    r[i + 1] = r[i] - q[i],    z = q[1] + ... + q[K]

(Zeghidour 2021, SoundStream; Défossez 2022, EnCodec.) In DAC's form (Kumar 2023) each layer searches in a small space:
q[i] = out_i(nearest code to in_i(r[i])). Two terms for each layer, means over numbers, summed over layers (or their mean):

    commitment  |in(r) - sg[code]|^2        codebook  |sg[in(r)] - code|^2, where codes learn by gradient

The decoder's gradient passes each quantizer unchanged (straight through), so it reaches h as if nothing had been
quantized. The commitment's must not: subtracting a q that passes it on would cancel it in every layer but the first
(encodec issue 25). Hence two residuals of equal value, one for each; `detach=False` has one for both, as DAC does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from audiovae.bottlenecks.base import Bottled, Bottleneck
from audiovae.bottlenecks.codebook import (
    ROWS_PER_CODE,
    Codebook,
    CodebookConfig,
    add_up,
    agree,
    draw,
    spread,
)
from audiovae.errors import expect_codes
from audiovae.nn.noise import mix

Estimator = Callable[[Tensor, Tensor], Tensor]


class RVQConfig(CodebookConfig):
    """Codebooks in a row.

    EnCodec: as it stands, latent_dim 128. DAC: latent_dim 1024, codebook_dim 8, normalise, update "gradient",
    kmeans_iterations 0, revive_below 0, detach False. One half of Mimi: latent_dim 512, codebook_dim 256, shared_projection.
    """

    kind: Literal["rvq"] = "rvq"
    n_codebooks: int = Field(8, ge=1)  # K
    shared_projection: bool = False  # one pair around all codebooks instead of one for each
    dropout: float = Field(0.5, ge=0, le=1)  # share of training items that keep only the first 1..K
    detach: bool = True
    reduction: Literal["sum", "mean"] = "sum"  # of both terms, over the codebooks in use


class Quantized(NamedTuple):
    """What a layer returns."""

    y: Tensor  # [B, F, D], what it adds to z
    codes: Tensor  # [B, F]
    commitment: Tensor  # [B]
    codebook: Tensor | None  # [B], if codes learn by gradient


def straight_through(e: Tensor, q: Tensor) -> Tensor:
    """q in value, e in gradient (Bengio 2013).  Exactly q: e + (q - e) would round."""
    return q.detach() + (e - e.detach())


class Layer(nn.Module):
    """One codebook, between its projections where it has any."""

    def __init__(self, config: CodebookConfig, projected: bool, estimator: Estimator) -> None:
        super().__init__()
        self.codebook = Codebook(config)
        self.estimator = estimator
        self.input: nn.Conv1d | None = None
        self.output: nn.Conv1d | None = None
        if projected and config.codebook_dim is not None:
            self.input = weight_norm(nn.Conv1d(config.latent_dim, config.codebook_dim, 1))
            self.output = weight_norm(nn.Conv1d(config.codebook_dim, config.latent_dim, 1))

    def forward(self, through: Tensor, apart: Tensor) -> Quantized:
        """Quantize a residual [B, F, D], given twice: for the decoder's gradient and for the commitment's."""
        e = pointwise(self.input, through)  # [B, F, d]
        committed = e if apart is through else pointwise(self.input, apart)
        codes = self.codebook.search(e)
        if self.training and self.codebook.tracks:
            self.codebook.gather(e, codes)
        q = self.codebook(codes)
        return Quantized(
            y=pointwise(self.output, self.estimator(e, q)),
            codes=codes,
            commitment=(committed - q.detach()).square().mean((1, 2)),
            codebook=None if self.codebook.averages else (q - e.detach()).square().mean((1, 2)),
        )

    def decode(self, codes: Tensor) -> Tensor:
        """Codes [B, F] -> what they add to z, [B, F, D]."""
        return pointwise(self.output, self.codebook(codes))


class RVQ(Bottleneck):
    """h [B, W, F] -> z [B, D, F], codes [B, K, F].  With width None, h is [B, D, F]."""

    def __init__(
        self,
        config: RVQConfig,
        width: int | None,
        frame_rate: float,
        estimator: Estimator = straight_through,
    ) -> None:
        super().__init__()
        self.config = config
        self.frame_rate = frame_rate
        dim, inner, shared = config.latent_dim, config.codebook_dim, config.shared_projection
        self.features = nn.Identity() if width is None else nn.Conv1d(width, dim, 1)
        self.input: nn.Conv1d | None = None
        self.output: nn.Conv1d | None = None
        if shared and inner is not None:
            self.input = nn.Conv1d(dim, inner, 1, bias=False)
            self.output = nn.Conv1d(inner, dim, 1, bias=False)
        self.layers = nn.ModuleList(
            Layer(config, not shared, estimator) for _ in range(config.n_codebooks)
        )
        self._rows: list[Tensor] = []  # what the first layer was given in each forward pass, [n, D]

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Codes of each codebook."""
        return (self.config.codebook_size,) * self.config.n_codebooks

    def forward(
        self, h: Tensor, *, sample: bool, generators: Sequence[torch.Generator] = ()
    ) -> Bottled:
        """Quantize.  h [B, W, F] -> z [B, D, F], in float32; in training `sample` lets items drop fine codebooks."""
        features = self.features(h)
        with torch.autocast(h.device.type, enabled=False):  # the fine codes are below bf16's bits
            rows = pointwise(self.input, features.float().mT)  # [B, F, D]
            if self.training and self._books[0].tracks:
                self._rows.append(rows.detach().flatten(0, 1))
            kept = self._kept(len(h), generators) if sample and self.training else None
            z, codes, terms = self._quantize(rows, kept)
            z = pointwise(self.output, z).mT
        return Bottled(z=z, codes=(codes,), moments=None, terms=terms)

    def from_codes(self, codes: Tensor) -> Tensor:
        """Codes [B, K, F] of all codebooks or the first few -> z [B, D, F].  Raises LatentError for others."""
        expect_codes(codes, self.codebook_sizes)
        with torch.autocast(codes.device.type, enabled=False):
            ys = [
                layer.decode(chosen)
                for layer, chosen in zip(self._layers, codes.unbind(1), strict=False)
            ]
            return pointwise(self.output, _added(ys)).mT

    @torch.no_grad()
    def commit(self, seed: int) -> None:
        """Move the codes by what the step has seen, in all processes alike."""
        books = self._books
        uses = [use for book in books if (use := book.take_use()) is not None]
        if not uses:
            return
        if all(bool(book.initialised) for book in books):
            for number, (book, use) in enumerate(
                zip(books, add_up(torch.stack(uses)), strict=True)
            ):
                book.absorb(use, torch.Generator().manual_seed(mix(seed, number)))
        else:
            generator = torch.Generator().manual_seed(seed)
            rows = draw(self._rows, None, generator)
            self._place(rows, len(rows), generator)
        self.discard()

    @property
    def fresh(self) -> bool:
        """Whether there are codes that k-means has still to place."""
        return any(book.tracks and not book.initialised for book in self._books)

    @torch.no_grad()
    def begin(self, seed: int) -> None:
        """Place all codebooks by k-means on the frames of several batches, each on what those before it leave."""
        rows = torch.cat(self._rows)
        rows_a_step = len(rows) // len(self._rows)
        rows = rows[rows.isfinite().all(1)]
        if len(rows) > 0:
            self._place(rows, rows_a_step, torch.Generator().manual_seed(seed))
        self.discard()

    def discard(self) -> None:
        """Forget the step."""
        self._rows = []
        for book in self._books:
            book.discard()

    @property
    def _layers(self) -> Sequence[Layer]:
        return cast(Sequence[Layer], self.layers)

    @property
    def _books(self) -> list[Codebook]:
        return [layer.codebook for layer in self._layers]

    def _quantize(
        self, rows: Tensor, kept: Tensor | None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """rows [B, F, D], kept [B] codebooks of each item -> z [B, F, D], codes [B, K, F], terms."""
        through = apart = rows
        ys, codes, commitments, codebooks = [], [], [], []
        used = rows.new_full((len(rows),), len(self.layers)) if kept is None else kept.to(rows)
        shares = 1 / used if self.config.reduction == "mean" else torch.ones_like(used)  # [B]
        for number, layer in enumerate(self.layers):
            found: Quantized = layer(through, apart)
            heard = (used > number).to(rows)  # [B]
            ys.append(found.y if kept is None else found.y * heard[:, None, None])
            codes.append(found.codes)
            commitments.append((found.commitment * heard * shares).mean())
            if found.codebook is not None:
                codebooks.append((found.codebook * heard * shares).mean())
            separate = self.config.detach and torch.is_grad_enabled()
            through, before = through - found.y, apart
            apart = before - found.y.detach() if separate else through
        terms = {"commitment": torch.stack(commitments).sum()}
        if codebooks:
            terms["codebook"] = torch.stack(codebooks).sum()
        return _added(ys), torch.stack(codes, dim=1), terms

    def _kept(self, items: int, generators: Sequence[torch.Generator]) -> Tensor:
        """How many codebooks each item keeps: all, or with chance `dropout` any number from 1 on.  [B]."""
        sources = list(generators) or [torch.default_generator] * items
        count, kept = self.config.n_codebooks, []
        for source in sources:
            drop = float(torch.rand((), generator=source)) < self.config.dropout
            fewer = int(torch.randint(1, count + 1, (), generator=source))
            kept.append(fewer if drop else count)
        return torch.tensor(kept, device=self._books[0].vectors.device)

    def _place(self, rows: Tensor, rows_a_step: int, generator: torch.Generator) -> None:
        """Place all codebooks by k-means, each on what those before it leave of the rows [n, D]."""
        rows = spread(rows, ROWS_PER_CODE * self.config.codebook_size)[None]  # [1, n, D]
        for layer in self._layers:
            e = pointwise(layer.input, rows)
            layer.codebook.begin(e[0], rows_a_step, generator)
            rows = rows - layer.decode(layer.codebook.search(e))
        agree([tensor for book in self._books for tensor in book.state_dict().values()])


def pointwise(conv: nn.Conv1d | None, rows: Tensor) -> Tensor:
    """A convolution of one frame on rows [B, F, D]; None leaves them as they are."""
    return rows if conv is None else nn.functional.linear(rows, conv.weight[..., 0], conv.bias)


def _added(ys: Sequence[Tensor]) -> Tensor:
    """Their sum, first to last."""
    total = ys[0]
    for y in ys[1:]:
        total = total + y
    return total
