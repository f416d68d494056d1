"""A codebook and how it learns: by gradient or by averages, from k-means, with dead codes revived.

    counts <- decay counts + (1 - decay) rows that chose the code in this step
    sums   <- decay sums   + (1 - decay) their sum,          vectors = sums / counts      (van den Oord 2017, app. A.1)

A code that is chosen less than `revive_below` times as often as the mean code moves to a row of the step, and its sums
and counts move with it: else the next average would put it back. `gather` only notes what a step has seen; `commit`
takes it over. With several processes every one holds the same codebook: what they saw is added up, and rows are drawn
by number from the rows of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.distributed as dist
from pydantic import Field
from torch import Tensor, nn

from audiovae.bottlenecks.search import nearest
from audiovae.config import Config

LEAST_COUNT = 1e-5  # below it sums / counts is 0 / 0: the vector stays
ROWS_PER_CODE = 4  # that k-means sees; with one each, nothing would be left for the next codebook


class CodebookConfig(Config):
    """What one codebook, or each of several in a row, is like."""

    latent_dim: int = Field(64, ge=1)  # D
    codebook_size: int = Field(1024, ge=2, le=65_536)  # V
    codebook_dim: int | None = Field(None, ge=1)  # of a code; None: latent_dim, without projections
    update: Literal["ema", "gradient"] = "ema"  # how codes move
    decay: float = Field(0.99, ge=0, lt=1)  # of the averages: halves after 69 steps
    normalise: bool = False  # the nearest code is the one at the smallest angle
    kmeans_iterations: int = Field(10, ge=0)  # on the first batches; 0: begin with random codes
    revive_below: float = Field(0.1, ge=0, lt=1)  # of the mean use; 0: never


class Codebook(nn.Module):
    """V vectors of d numbers, and what is known of their use."""

    vectors: Tensor  # [V, d], a parameter if it learns by gradient
    counts: Tensor  # [V], averaged rows a step; absent where neither averages nor revival need it
    sums: Tensor  # [V, d], averaged; only of averages
    initialised: Tensor  # [1], 1 once k-means was done or if it never will be; beside counts

    def __init__(self, config: CodebookConfig) -> None:
        super().__init__()
        self.config = config
        self.averages = config.update == "ema"
        self.tracks = self.averages or config.kmeans_iterations > 0 or config.revive_below > 0
        vectors = torch.randn(config.codebook_size, config.codebook_dim or config.latent_dim)
        if self.averages:
            self.register_buffer("vectors", vectors)
            self.register_buffer("sums", vectors.clone())
        else:
            self.vectors = nn.Parameter(vectors)
        if self.tracks:
            self.register_buffer("counts", torch.ones(len(vectors)))
            self.register_buffer("initialised", torch.tensor([float(not config.kmeans_iterations)]))
        self.placed: Tensor | None = None  # codes that the last commit put elsewhere at once
        self._use: Tensor | None = None  # [V, d + 1]: sums and, in the last column, counts
        self._rows: list[Tensor] = []  # of each forward pass, [n, d]

    def search(self, rows: Tensor) -> Tensor:
        """The nearest code of each row.  [..., d] -> [...] int64."""
        return nearest(rows, self.vectors, by_angle=self.config.normalise)

    def forward(self, codes: Tensor) -> Tensor:
        """The vectors of codes.  [...] int64 -> [..., d]."""
        return nn.functional.embedding(codes, self.vectors)

    @torch.no_grad()
    def gather(self, rows: Tensor, codes: Tensor) -> None:
        """Note which rows chose which codes.  rows [..., d], codes [...]."""
        rows, codes = rows.detach().flatten(0, -2), codes.flatten()
        counted = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
        use = rows.new_zeros(len(self.vectors), counted.shape[1]).index_add_(0, codes, counted)
        # a + b, as two processes add: rows one after the other onto one sum would round differently
        self._use = use if self._use is None else self._use + use
        self._rows.append(spread(rows, len(self.vectors)))

    def take_use(self) -> Tensor | None:
        """What was gathered, [V, d + 1], or None if nothing was."""
        return self._use

    def discard(self) -> None:
        """Forget what was gathered."""
        self._use, self._rows = None, []

    @torch.no_grad()
    def begin(self, rows: Tensor, rows_a_step: int, generator: torch.Generator) -> None:
        """Place codes by k-means on the rows [n, d]; with few rows some stay unused until a later step revives them."""
        vectors, counts = kmeans(rows, self.config, generator)
        self.placed = torch.arange(len(vectors))
        self.vectors[: len(vectors)] = vectors
        self.counts.zero_()
        self.counts[: len(vectors)] = counts * (rows_a_step / len(rows))
        if self.averages:
            self.sums.copy_(self.vectors * self.counts[:, None])
        self.initialised.fill_(1)

    @torch.no_grad()
    def absorb(self, use: Tensor, generator: torch.Generator) -> None:
        """Take over a step of all processes, [V, d + 1], and revive what is dead."""
        self.placed = None
        decay = self.config.decay
        self.counts.lerp_(use[:, -1], 1 - decay)
        if self.averages:
            self.sums.lerp_(use[:, :-1], 1 - decay)
            means = self.sums / self.counts.clamp(min=LEAST_COUNT)[:, None]
            self.vectors.copy_(torch.where(self.counts[:, None] > LEAST_COUNT, means, self.vectors))
        if self.config.revive_below > 0:
            self._revive(generator)

    def _revive(self, generator: torch.Generator) -> None:
        """Move unused codes to rows of the step, at most as many as there are rows."""
        mean = self.counts.mean()
        dead = (self.counts < self.config.revive_below * mean).nonzero().flatten()
        if len(dead) == 0:
            return
        rows = draw(self._rows, len(dead), generator)
        self.placed = dead = dead[: len(rows)]
        self.vectors[dead] = rows
        self.counts[dead] = mean
        if self.averages:
            self.sums[dead] = rows * mean


def spread(rows: Tensor, most: int) -> Tensor:
    """At most so many of the rows, evenly spaced."""
    if len(rows) <= most:
        return rows
    return rows[torch.arange(most, device=rows.device) * len(rows) // most]


def kmeans(
    rows: Tensor, config: CodebookConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm from random rows [n, d] -> means, V or fewer, and how many rows each has.

    With few rows there is a mean for every ROWS_PER_CODE of them, if the other codes can be revived later.
    """
    share = ROWS_PER_CODE if config.revive_below > 0 else 1
    count = min(-(-len(rows) // share), config.codebook_size)
    order = torch.randperm(len(rows), generator=generator)[:count].to(rows.device)
    means = rows[order]
    for _ in range(config.kmeans_iterations):
        chosen = nearest(rows, means, by_angle=config.normalise)
        counts = chosen.bincount(minlength=count)
        sums = torch.zeros_like(means).index_add_(0, chosen, rows)
        means = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], means)
    return means, counts


def draw(parts: Sequence[Tensor], count: int | None, generator: torch.Generator) -> Tensor:
    """Rows of all processes, drawn without repetition (None: all of them, in order); the same ones in every process.

    parts [n, d] each are this process's, in the order of its micro-batches.
    """
    own = torch.cat(list(parts))
    lengths = _lengths(own)
    total = sum(lengths)
    numbers = torch.arange(total)
    if count is not None:
        numbers = torch.randperm(total, generator=generator)[:count]
    if len(lengths) == 1:
        return own[numbers.to(own.device)]
    first = sum(lengths[: dist.get_rank()])
    ours = (numbers >= first) & (numbers < first + len(own))
    rows = own.new_zeros(len(numbers), own.shape[1])
    rows[ours.to(own.device)] = own[(numbers[ours] - first).to(own.device)]
    dist.all_reduce(rows)  # the other processes have zeros there: the sum is exact
    return rows


def add_up(use: Tensor) -> Tensor:
    """The sum over all processes."""
    if _processes() > 1:
        dist.all_reduce(use)
    return use


def agree(tensors: Sequence[Tensor]) -> None:
    """Give every process the first one's values: arithmetic may differ between kinds of processors."""
    if _processes() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def _lengths(rows: Tensor) -> list[int]:
    """How many rows each process has."""
    if _processes() == 1:
        return [len(rows)]
    lengths = torch.zeros(_processes(), dtype=torch.int64, device=rows.device)
    lengths[dist.get_rank()] = len(rows)
    dist.all_reduce(lengths)
    return [int(length) for length in lengths]


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
