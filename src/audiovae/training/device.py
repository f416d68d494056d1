"""Where a training computes, and what it leaves behind as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from audiovae.errors import ConfigError
from audiovae.memory import keep_freed_memory
from audiovae.training.distributed import ALONE, World


def choose_device(name: str, world: World = ALONE) -> torch.device:
    """The device that a name means; "auto" is a GPU where there is one.  Raises ConfigError."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    name = ("cuda" if cuda else "mps" if mps else "cpu") if name == "auto" else name
    if (name == "cuda" and not cuda) or (name == "mps" and not mps):
        raise ConfigError(f"device {name} is not there on this machine; use auto or cpu")
    if name == "cuda":
        torch.cuda.set_device(world.local_rank)
        return torch.device("cuda", world.local_rank)
    return torch.device(name)


@contextmanager
def own_threads_and_chance(threads: int | None, device: torch.device) -> Iterator[None]:
    """The caller's number of threads and torch's global generators come back afterwards."""
    before = torch.get_num_threads()
    gpus = [device.index] if device.type == "cuda" else []
    keep_freed_memory()
    with torch.random.fork_rng(devices=gpus):
        torch.set_num_threads(threads or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Whether to run the model under bf16 autocast: as told, or where the processor multiplies it natively.

    AVX-512 BF16 multiplies matrices several times faster than fp32; without it bf16 is emulated and slower.
    """
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def autocast(device: torch.device, low_precision: bool) -> AbstractContextManager[object]:
    """bf16 where products allow it, or everything as it is."""
    return torch.autocast(device.type, torch.bfloat16) if low_precision else nullcontext()
