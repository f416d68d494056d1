"""Every setting of a training, typed, with its unit; a run folder stores the whole of it.

The number of update steps governs every schedule.  It is given as `steps`, or found from `minutes` by timing a few
steps before the first one counts; the run folder stores the number, so that a resumed run keeps it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from audiovae import __version__
from audiovae.config import Config, parse, read_json
from audiovae.data import DataConfig, NotesData
from audiovae.errors import CheckpointError
from audiovae.models import AnyModelConfig
from audiovae.models.spec_frame import spec_frame
from audiovae.training.adversarial import AdversarialConfig
from audiovae.training.descent import OptimizerConfig
from audiovae.training.objective import ObjectiveConfig
from audiovae.training.weights import ADVERSARIAL_WEIGHTS

RUN_CONFIG = "config.json"
RUN_FORMAT = 1


def _found_from_anywhere(model: str | Path | None) -> str | None:
    """A run or model folder as an absolute path, so that a resumed run finds it; a built-in name as it is."""
    if isinstance(model, Path) or (model and ("/" in model or os.sep in model)):
        return os.path.abspath(model)
    return model


InitModel = Annotated[str | None, BeforeValidator(_found_from_anywhere)]


class TrainConfig(Config):
    """One training run."""

    model: AnyModelConfig = Field(default_factory=spec_frame)
    data: DataConfig = Field(default_factory=NotesData)
    objective: ObjectiveConfig = Field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    adversarial: AdversarialConfig | None = None  # a VAE-GAN: who judges, and when

    minutes: float | None = Field(None, gt=0)  # wall clock; 20 if neither it nor `steps` is given
    steps: int | None = Field(None, ge=1)  # updates of the weights
    seed: int = Field(0, ge=0)  # of weights, crops, augmentation and noise
    batch_size: int = Field(16, ge=1)  # sounds in one update, over all micro-batches and processes
    accumulate: int = Field(1, ge=1)  # micro-batches of an update in each process: less memory
    init: InitModel = None  # fine-tune: start from the weights of this model or run

    checkpoint_every: int | None = Field(None, ge=1)  # steps; None: every ten minutes
    keep_last: int = Field(2, ge=1)  # newest checkpoints to keep beside the best one
    validate_every: int | None = Field(None, ge=1)  # steps; None: twenty times in the run
    log_every: int = Field(10, ge=1)  # steps
    tensorboard: bool | None = None  # curves and audio; None: if audiovae[train] is installed

    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 where the processor has it
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: int | None = Field(
        None, ge=1
    )  # None: torch's own choice; exact resume needs the same number
    prefetch: int | None = Field(
        None, ge=0
    )  # batches made ahead in threads; None: 2 beside a GPU, else 0

    @model_validator(mode="after")
    def _one_length(self) -> TrainConfig:
        if self.minutes is not None and self.steps is not None:
            raise ValueError("give minutes or steps, not both")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size {self.batch_size} must be a multiple of accumulate {self.accumulate}"
            )
        return self

    @model_validator(mode="after")
    def _terms_have_their_source(self) -> TrainConfig:
        named = {n for n in ADVERSARIAL_WEIGHTS if self.objective.weights.get(n, 0.0) > 0}
        if named and self.adversarial is None:
            raise ValueError(
                f"objective.weights.{min(named)} needs discriminators: set adversarial, if only to {{}}"
            )
        if self.adversarial is not None and self.adversarial.balancer is not None:
            if self.accumulate > 1:
                raise ValueError(
                    f"a balancer needs the whole batch of a process at once: accumulate must be 1, got {self.accumulate}"
                )
            if self.objective.learn_sigma:
                raise ValueError(
                    "a balancer weighs gradients at x_hat alone, so log_sigma would not learn: set learn_sigma to false"
                )
        return self

    @property
    def length_in_minutes(self) -> float:
        """The wall clock to fill where `steps` does not say."""
        return self.minutes if self.minutes is not None else 20.0


# What may differ when a run is resumed. The first group changes nothing that is learned; after the second the run
# goes on well, but is no longer the one that would have come without the break. All else is refused.
HARMLESS = {"checkpoint_every", "keep_last", "log_every", "prefetch", "tensorboard"}
ACCEPTED = {
    "device",
    "precision",
    "threads",
    "validate_every",
    "optimizer.learning_rate",
    "optimizer.weight_decay",
    "optimizer.clip",
    "adversarial.optimizer.learning_rate",
    "adversarial.optimizer.weight_decay",
    "adversarial.optimizer.clip",
}


class RunRecord(Config):
    """What a run folder's config.json holds."""

    format: int = RUN_FORMAT
    audiovae: str = __version__
    config: TrainConfig
    total_steps: int = Field(ge=1)
    validate_every: int = Field(ge=1)  # steps
    fingerprint: str  # of the data: another one is another run
    init_hash: str | None = None  # of the model that it started from

    @classmethod
    def read(cls, folder: Path) -> RunRecord | None:
        """The record of a run folder, None if it has none.  Raises CheckpointError if it is too new."""
        path = folder / RUN_CONFIG
        if not path.exists():
            return None
        values = read_json(path)
        if isinstance(values.get("format"), int) and values["format"] > RUN_FORMAT:
            raise CheckpointError(
                f"{path} has format {values['format']}, this audiovae ({__version__}) reads up to "
                f"{RUN_FORMAT}; update audiovae"
            )
        record: RunRecord = parse(cls, values, str(path))
        return record


def continued(stored: TrainConfig, given: TrainConfig) -> dict[str, Any]:
    """The stored settings with those that were given set over them; model and data count as a whole."""
    whole = given.model_dump(mode="json", include={"model", "data"} & given.model_fields_set)
    rest = _said(given, exclude={"model", "data"})
    return _overlaid(stored.model_dump(mode="json"), rest) | whole


def _said(given: Config, exclude: Collection[str] = ()) -> dict[str, Any]:
    """What was given of a config, table by table; a list counts as a whole."""
    whole = given.model_dump(mode="json")
    return {
        name: _said(value) if isinstance(value := getattr(given, name), Config) else whole[name]
        for name in given.model_fields_set.difference(exclude)
    }


def differences(
    a: dict[str, Any], b: dict[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """The settings that differ: (dotted name, in a, in b)."""
    for name in sorted(a.keys() | b.keys()):
        left, right = a.get(name), b.get(name)
        if isinstance(left, dict) and isinstance(right, dict):
            yield from differences(left, right, f"{prefix}{name}.")
        elif left != right:
            yield f"{prefix}{name}", left, right


def _overlaid(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    nested = {
        name: _overlaid(base[name], value)
        for name, value in changes.items()
        if isinstance(value, dict) and isinstance(base.get(name), dict)
    }
    return base | changes | nested
