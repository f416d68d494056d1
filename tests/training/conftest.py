"""A training small enough to run dozens of times, and a way to run it in a process that may be killed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from audiovae.checkpoint import Manifest, checkpoints
from audiovae.data import Batch, SynthData
from audiovae.models import resolve
from audiovae.training import TrainConfig


class Ended(NamedTuple):
    """What a checkpoint holds, to compare two runs bit for bit."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]

    def differs_from(self, other: Ended) -> list[str]:
        """The names of what is not equal bit for bit."""
        names = self.tensors.keys() ^ other.tensors.keys()
        equal = self.tensors.keys() & other.tensors.keys()
        names |= {
            name for name in equal if not torch.equal(self.tensors[name], other.tensors[name])
        }
        return sorted(names) + (["values"] if self.values != other.values else [])


def _tiny(**changes: Any) -> TrainConfig:
    """0.1 s of mono at 8 kHz, a few thousand weights, a controlled rate: every kind of state there is."""
    settings: dict[str, Any] = {
        "model": resolve(
            "spec_frame",
            {
                "size": 0,
                "sample_rate": 8_000,
                "channels": 1,
                "width": 8,
                "latent_width": 8,
                "latent_depth": 1,
                "bottleneck.latent_dim": 4,
            },
        ),
        "data": SynthData(segment_seconds=0.1, valid_crops=4),
        "objective": {"name": "elbo", "target_rate": 500.0, "learn_sigma": True},
        "steps": 24,
        "batch_size": 4,
        "validate_every": 7,
        "checkpoint_every": 2,
        "log_every": 3,
        "threads": 1,
        "precision": "fp32",
        "tensorboard": False,
    }
    return TrainConfig(**(settings | changes))


@pytest.fixture(scope="session")
def tiny() -> Callable[..., TrainConfig]:
    """The config of a tiny run, with changes by name."""
    return _tiny


def _ended(run: Path) -> Ended:
    manifest = Manifest.read(checkpoints(run)[-1])
    manifest.check()
    tensors = {
        f"{file}:{name}": tensor
        for file in sorted(manifest.files)
        if file.endswith(".safetensors")
        for name, tensor in manifest.tensors(file).items()
    }
    return Ended(tensors, manifest.json("training.json"))


@pytest.fixture
def ended() -> Callable[[Path], Ended]:
    """The newest checkpoint of a run folder, verified and read."""
    return _ended


@pytest.fixture
def child() -> Iterator[Callable[..., int]]:
    """Start a function in a forked process (imports are paid for already); returns its process id.

    The process ends with 0, or the code of a SystemExit, or 1 with the error on its standard error.
    """
    started: list[int] = []

    def start(work: Callable[[], object], **environment: str) -> int:
        sys.stderr.flush()
        process = os.fork()
        if process == 0:
            code = 1
            try:
                os.environ.update(environment)
                work()
                code = 0
            except SystemExit as stop:
                code = int(stop.code or 0)
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            finally:
                os._exit(code)
        started.append(process)
        return process

    yield start
    for process in started:
        try:
            os.kill(process, 9)
            os.waitpid(process, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


class Poisoned:
    """A data set with some batches that hold a NaN, and maybe one that ends the process."""

    def __init__(self, inner: Any, steps: set[int], dies_at: int | None) -> None:
        self.inner = inner
        self.steps = steps
        self.dies_at = dies_at
        self.fingerprint = inner.fingerprint
        self.valid_batches = inner.valid_batches
        self.describe = inner.describe

    def train_batch(self, seed: int, step: int, items: range) -> Batch:
        if step == self.dies_at:
            os._exit(9)
        batch: Batch = self.inner.train_batch(seed, step, items)
        if step in self.steps:
            batch.x[0, 0, 5] = torch.nan
        return batch


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put a NaN into the training batches of some steps."""
    module = sys.modules["audiovae.training.run"]  # the package has a function of this name
    opened = module.open_for

    def use(steps: set[int], *, dies_at: int | None = None) -> None:
        def poisoned(*args: Any, **kwargs: Any) -> Poisoned:
            return Poisoned(opened(*args, **kwargs), steps, dies_at)

        monkeypatch.setattr(module, "open_for", poisoned)

    return use
