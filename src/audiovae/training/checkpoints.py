"""The checkpoints of a run folder: written whole, verified before use, pruned to the best and the last few.

checkpoints/step_00001000/   a model folder (see audiovae.checkpoint) with the averaged weights, and
    training.safetensors         weights, optimizer moments and buffers of the training
    training.json                step, best score so far, and the plain values of the task
checkpoints/best             the name of the folder with the lowest validation score
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from audiovae.checkpoint import checkpoints, load_weights, save_model
from audiovae.checkpoint.folder import Manifest, remove_temporary
from audiovae.errors import CheckpointError, DamagedError, OutputError
from audiovae.latents import LatentStatistics
from audiovae.models import Autoencoder
from audiovae.paths import replacing


class State(NamedTuple):
    """All that a task needs to go on: tensors, and plain values that JSON can hold."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]


class Best(NamedTuple):
    """The checkpoint with the lowest validation score."""

    step: int
    score: float


class Standing(NamedTuple):
    """How far a run has come."""

    step: int = 0  # steps done
    best: Best | None = None
    skipped_in_a_row: int = 0

    def after(self, *, skipped: bool) -> Standing:
        """The standing one step later."""
        return self._replace(
            step=self.step + 1, skipped_in_a_row=self.skipped_in_a_row + 1 if skipped else 0
        )

    def improved_by(self, score: float) -> bool:
        """Whether a score (lower is better) beats the best one so far."""
        return math.isfinite(score) and (self.best is None or score < self.best.score)

    def with_best(self, score: float) -> Standing:
        """The standing with this step as the best one."""
        return self._replace(best=Best(self.step, score))


class RunFolder:
    """The checkpoints of one run."""

    def __init__(self, path: Path, keep_last: int = 2) -> None:
        self.path = path
        self.keep_last = keep_last
        self.standing = Standing()

    def save(
        self,
        standing: Standing,
        product: Autoencoder,
        statistics: LatentStatistics | None,
        state: State,
    ) -> Path:
        """Write a checkpoint, point to the best one and remove what is neither best nor among the last.

        Raises OutputError if the disk refuses; the last checkpoint, which it names, is then whole.
        """
        folder = self._folder(standing.step)
        values = {"standing": standing._asdict(), "task": state.values}
        extra = {"training.safetensors": state.tensors, "training.json": values}
        try:
            save_model(folder, product, statistics=statistics, extra=extra, replace=True)
            self._point_to_best(standing)
        except (OSError, OutputError) as error:
            last = f"step {self.standing.step}" if self.standing.step else "none yet"
            raise OutputError(
                f"the checkpoint of step {standing.step} failed: {error}. The last whole checkpoint "
                f"({last}) is untouched: make room and go on with --resume"
            ) from error
        self.standing = standing
        self._prune(standing)
        return folder

    def has_whole(self, step: int) -> bool:
        """Whether the checkpoint of a step is there, and whole."""
        try:
            Manifest.read(self._folder(step)).check()
        except CheckpointError:
            return False
        return True

    def restore(self, product: Autoencoder, warn: Callable[[str], None]) -> State | None:
        """Load the newest whole checkpoint; None (and step 0) where there is none.

        A damaged one is named to `warn`; once an earlier one proved whole it is set aside as damaged_step_*.  Raises
        CheckpointError if one cannot be read or is too new, or if all are damaged; then everything stays as it is.
        """
        if not (self.path / "checkpoints").is_dir():
            return None
        remove_temporary(self.path / "checkpoints")
        found = checkpoints(self.path)
        for place, folder in reversed(list(enumerate(found))):
            try:
                state = self._read(folder, product)
            except DamagedError as error:
                warn(f"{error}; the checkpoint before it is used")
                continue
            for damaged in found[place + 1 :]:
                aside = damaged.with_name(f"damaged_{damaged.name}")
                shutil.rmtree(aside, ignore_errors=True)
                damaged.rename(aside)
            self._point_to_best(self.standing)
            return state
        if found:
            raise CheckpointError(
                f"none of the {len(found)} checkpoint(s) in {self.path / 'checkpoints'} is whole; start "
                "again in another folder"
            )
        return None

    def _read(self, folder: Path, product: Autoencoder) -> State:
        manifest = Manifest.read(folder)
        manifest.check()
        values = manifest.json("training.json")
        weights = manifest.tensors("model.safetensors")
        state = State(manifest.tensors("training.safetensors"), values["task"])
        load_weights(product, weights, str(folder / "model.safetensors"))
        best = values["standing"]["best"]
        if best is not None and not self._folder(best[0]).is_dir():  # a later one had replaced it
            best = None
        self.standing = Standing(**values["standing"])._replace(best=best and Best(*best))
        return state

    def _folder(self, step: int) -> Path:
        return self.path / "checkpoints" / f"step_{step:08d}"

    def _point_to_best(self, standing: Standing) -> None:
        """Name the best folder; written from the standing, so a run that was cut off between the two is mended."""
        pointer = self.path / "checkpoints" / "best"
        if standing.best is None:
            pointer.unlink(missing_ok=True)
            return
        name = self._folder(standing.best.step).name + "\n"
        if not (pointer.exists() and pointer.read_text(encoding="utf-8") == name):
            with replacing(pointer) as temporary:
                temporary.write_text(name, encoding="utf-8")

    def _prune(self, standing: Standing) -> None:
        kept = {self._folder(standing.best.step)} if standing.best else set()
        for folder in checkpoints(self.path)[: -self.keep_last]:
            if folder not in kept:
                shutil.rmtree(folder, ignore_errors=True)
