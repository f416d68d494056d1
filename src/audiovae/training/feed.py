"""Batches by number, made ahead in threads: the answer does not depend on who asks when."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import NamedTuple

import torch

from audiovae.data import Batch, Dataset


class Part(NamedTuple):
    """One micro-batch: its sounds and their numbers within the step."""

    items: range
    batch: Batch


class Feed:
    """The micro-batches of this process for any step, on the device; a context manager that ends its threads."""

    def __init__(
        self,
        data: Dataset,
        seed: int,
        shares: Sequence[range],
        device: torch.device,
        ahead: int = 0,
    ) -> None:
        self.data = data
        self.seed = seed
        self.shares = shares
        self.device = device
        self.ahead = ahead
        self._pool = ThreadPoolExecutor(
            max_workers=max(1, ahead), thread_name_prefix="audiovae-feed"
        )
        self._made: dict[int, Future[list[Batch]]] = {}

    def parts(self, step: int) -> list[Part]:
        """The micro-batches of a step; those of the next ones are begun."""
        batches = self._made.pop(step).result() if step in self._made else self._make(step)
        for soon in range(step + 1, step + 1 + self.ahead):
            if soon not in self._made:
                self._made[soon] = self._pool.submit(self._make, soon)
        return [
            Part(items, batch._replace(x=batch.x.to(self.device, non_blocking=True)))
            for items, batch in zip(self.shares, batches, strict=True)
        ]

    def __enter__(self) -> Feed:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _make(self, step: int) -> list[Batch]:
        return [self.data.train_batch(self.seed, step, items) for items in self.shares]
