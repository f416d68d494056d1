"""Several processes that train one model: torchrun starts them, gloo or nccl joins their gradients.

Each takes its share of the items of a step.  Items are numbered over all processes and their noise is seeded by
(seed, step, item), so two processes do what one process does with two micro-batches, bit for bit: a/2 + b/2 in one is
(a + b)/2 in the other, and halving is exact.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from audiovae.errors import AudioVaeError, ConfigError

T = TypeVar("T")


class World(NamedTuple):
    """This process among all that train together."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # among those of one machine: the number of the GPU

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and shows progress."""
        return self.rank == 0

    def share(self, batch_size: int, accumulate: int) -> list[range]:
        """The item numbers of this process's micro-batches.  Raises ConfigError if they do not divide."""
        parts = self.size * accumulate
        if batch_size % parts:
            raise ConfigError(
                f"batch_size {batch_size} does not divide into {self.size} process(es) x {accumulate} "
                f"micro-batch(es); the next that does is {-(-batch_size // parts) * parts}"
            )
        items = batch_size // parts
        first = self.rank * accumulate * items
        return [range(first + m * items, first + (m + 1) * items) for m in range(accumulate)]

    def wrap(self, module: nn.Module, device: torch.device, *, partly: bool = False) -> nn.Module:
        """The module, with its gradients averaged over all processes if there are several.

        `partly`: some steps use only a part of its weights.
        """
        if self.size == 1:
            return module
        ids = [device.index] if device.type == "cuda" else None
        with warnings.catch_warnings():  # the new name of broadcast_buffers is not in torch 2.10
            warnings.simplefilter("ignore", FutureWarning)
            return DistributedDataParallel(
                module,
                device_ids=ids,
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
                find_unused_parameters=partly,
            )

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; the same answer in all."""
        if self.size == 1:
            return flag
        flags = torch.tensor([float(flag)])
        dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        return bool(flags.item())

    def mean(self, values: list[float]) -> list[float]:
        """The means over all processes."""
        if self.size == 1:
            return values
        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums)
        return [value / self.size for value in sums.tolist()]

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in their order, in every process."""
        if self.size == 1:
            return [value]
        values: list[T] = [value] * self.size
        dist.all_gather_object(values, value)
        return values

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make` returns (or the error it raises) in the first process, in all of them."""
        if self.size == 1:
            return make()
        made: list[Any] = [None, None]
        if self.first:
            try:
                made[0] = make()
            except AudioVaeError as error:
                made[1] = error
        dist.broadcast_object_list(made, src=0)
        if made[1] is not None:
            raise made[1]
        result: T = made[0]
        return result

    def first_goes_first(self, make: Callable[[], T]) -> T:
        """What `make` returns, called in the first process before the others: it may fill a cache."""
        if not self.first:
            dist.barrier()
        try:
            return make()
        finally:
            if self.first and self.size > 1:
                dist.barrier()


ALONE = World()


def synchronised(module: nn.Module, last: bool) -> AbstractContextManager[object]:
    """Join the processes' gradients of a wrapped module in the last micro-batch only."""
    if isinstance(module, DistributedDataParallel) and not last:
        return module.no_sync()
    return nullcontext()


@contextmanager
def joined() -> Iterator[World]:
    """Join the processes that torchrun started; alone where there is no torchrun."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))
    finally:
        dist.destroy_process_group()
