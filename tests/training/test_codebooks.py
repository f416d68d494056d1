"""Training with codebooks: they move with finite steps only, and are the same ones in every process."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from audiovae.bottlenecks import RVQ, RVQConfig
from audiovae.bottlenecks.codebook import Codebook
from audiovae.data import open_dataset
from audiovae.models import build, resolve
from audiovae.training import TrainConfig, run
from audiovae.training.autoencoder import AutoencoderTask
from audiovae.training.feed import Feed, Part
from audiovae.training.schedules import Progress

Tiny = Callable[..., TrainConfig]
CPU = torch.device("cpu")


def discrete(tiny: Tiny, update: str = "ema", **changes: Any) -> TrainConfig:
    """The tiny run with two codebooks that begin by k-means and are revived soon; the spectral objective."""
    bottleneck = {"kind": "rvq", "latent_dim": 4, "n_codebooks": 2, "codebook_size": 24}
    bottleneck["update"] = update
    options = {"size": 0, "sample_rate": 8_000, "channels": 1, "width": 8, "latent_width": 8}
    model = resolve(
        "spec_frame", {**options, "latent_depth": 1, "bottleneck": {**bottleneck, "decay": 0.5}}
    )
    return tiny(model=model, objective={"name": "spectral"}, **changes)


def task_of(config: TrainConfig) -> AutoencoderTask:
    torch.manual_seed(0)
    return AutoencoderTask(build(config.model), data_of(config), config, CPU)


def data_of(config: TrainConfig) -> Any:
    model = config.model
    return open_dataset(
        config.data,
        sample_rate=model.sample_rate,
        channels=model.channels,
        multiple_of=model.hop_length,
    )


def parts_of(config: TrainConfig, step: int) -> list[Part]:
    with Feed(data_of(config), config.seed, [range(2), range(2, 4)], CPU) as feed:
        return feed.parts(step)


def codebooks(task: AutoencoderTask) -> dict[str, Tensor]:
    states = {"model": task.model.state_dict(), "product": task.product.state_dict()}
    return {
        f"{who}.{name}": value.clone()
        for who, state in states.items()
        for name, value in state.items()
        if "codebook" in name
    }


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[str]:
    return [name for name, value in after.items() if not torch.equal(value, before[name])]


def test_the_average_jumps_with_a_code_that_is_revived(tiny: Tiny) -> None:
    """Else it would creep to its new place over hundreds of steps, in the model that is validated and saved."""
    config = discrete(tiny, update="gradient")
    task = task_of(config)
    for step in range(12):
        assert task.step(parts_of(config, step), Progress(step, 24, 0)).fault is None
    revived = 0
    for step in range(12, 16):
        assert task.step(parts_of(config, step), Progress(step, 24, 0)).fault is None
        for ours, theirs in zip(books(task.product), books(task.model), strict=True):
            placed = theirs.placed if theirs.placed is not None else torch.tensor([], dtype=int)
            assert torch.equal(ours.vectors[placed], theirs.vectors[placed])
            revived += len(placed)
            others = torch.ones(24, dtype=torch.bool)
            others[placed] = False
            assert not torch.equal(ours.vectors[others], theirs.vectors[others])
    assert revived > 0


def books(model: nn.Module) -> list[Codebook]:
    return [module for module in model.modules() if isinstance(module, Codebook)]


def test_a_fresh_model_is_shown_several_batches_before_its_codebooks_begin(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    begin = Codebook.begin

    def noted(self: Codebook, rows: Tensor, rows_a_step: int, generator: torch.Generator) -> None:
        seen.append(len(rows))
        begin(self, rows, rows_a_step, generator)

    monkeypatch.setattr(Codebook, "begin", noted)
    folder = run(discrete(tiny, steps=2), tmp_path / "run", quiet=True)
    config = discrete(tiny)
    frames = parts_of(config, 0)[0].batch.x.shape[-1] // config.model.hop_length
    assert (
        seen == [min(8 * 4 * frames, 4 * 24)] * 2
    )  # eight batches of four sounds; four rows a code
    run(None, folder, resume=True, quiet=True)
    assert len(seen) == 2


def test_a_step_that_is_not_finite_leaves_the_codebooks_and_the_next_one_goes_on(
    tiny: Tiny,
) -> None:
    config = discrete(tiny, accumulate=2)
    task, never_poisoned = task_of(config), task_of(config)
    for each in (task, never_poisoned):
        begun = codebooks(each)
        assert each.step(parts_of(config, 0), Progress(0, 24, 0)).fault is None
        assert set(changed(begun, codebooks(each))) == set(begun)  # k-means placed all
    before = codebooks(task)
    for place in (0, 1):
        parts = parts_of(config, 1)
        parts[place].batch.x[0, 0, 3] = torch.nan
        assert task.step(parts, Progress(1, 24, 0)).fault == "non-finite loss"
        assert changed(before, codebooks(task)) == []
    for each in (task, never_poisoned):
        assert each.step(parts_of(config, 2), Progress(2, 24, 0)).fault is None
    assert changed(codebooks(never_poisoned), codebooks(task)) == []


def test_validation_reports_how_the_codebooks_are_used(tiny: Tiny) -> None:
    config = discrete(tiny)
    task = task_of(config)
    report = task.validate(Progress(0, 24, 0))
    nominal = 2 * torch.tensor(24.0).log2() * config.model.frame_rate
    torch.testing.assert_close(torch.tensor(report.figures["bits_per_second"]), nominal)
    assert 0 <= report.figures["entropy_bits_per_second"] <= float(nominal)
    assert 1 <= report.figures["perplexity.1"] <= report.figures["used_codes.1"] <= 24
    assert report.statistics is None
    assert task.validate(Progress(1, 24, 0)).figures == report.figures


def test_two_processes_hold_the_codebooks_of_two_micro_batches(
    tmp_path: Path, tiny: Tiny, child: Any, ended: Any
) -> None:
    """From k-means over averages and revivals to the last checkpoint, bit for bit; no buffer is ever broadcast."""
    one = run(discrete(tiny, accumulate=2, steps=8), tmp_path / "one", quiet=True)
    two = tmp_path / "two"
    assert in_two_processes(child, lambda: run(discrete(tiny, steps=8), two, quiet=True)) == [0, 0]
    assert ended(two).differs_from(ended(one)) == []


def test_a_run_that_was_stopped_goes_on_with_the_same_codebooks(
    tmp_path: Path, tiny: Tiny, child: Any, ended: Any, poison: Any
) -> None:
    config = discrete(tiny, steps=8)
    one = run(config, tmp_path / "one", quiet=True)
    two = tmp_path / "two"

    def die() -> None:
        poison(set(), dies_at=5)
        run(config, two, quiet=True)

    process = child(die)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 9
    run(config, two, resume=True, quiet=True)
    assert ended(two).differs_from(ended(one)) == []


def test_processes_with_different_numbers_of_frames_agree(tmp_path: Path, child: Any) -> None:
    """Each of two processes sees its own frames, 30 and 50 of them; one process sees both in two passes."""
    h = torch.randn(1, 4, 80, generator=torch.Generator().manual_seed(0))
    shares = [h[..., :30], h[..., 30:]]

    def quantizer(revive_below: float = 0.3) -> RVQ:
        torch.manual_seed(int(os.environ.get("RANK", "7")))  # the processes begin differently
        config = RVQConfig(
            latent_dim=4, n_codebooks=2, codebook_size=16, decay=0.5, revive_below=revive_below
        )
        return RVQ(config, None, 10.0)

    def train(bottleneck: RVQ, mine: list[Tensor]) -> None:
        for step in range(6):
            for part in mine:
                bottleneck(part + step, sample=False)
            bottleneck.commit(step)

    def work() -> None:
        dist.init_process_group("gloo")
        rank, bottleneck = dist.get_rank(), quantizer()
        train(bottleneck, [shares[rank]])
        torch.save(bottleneck.state_dict(), tmp_path / str(rank))
        dist.destroy_process_group()

    assert in_two_processes(child, work) == [0, 0]
    first, second = (torch.load(tmp_path / str(rank)) for rank in range(2))
    alone, without_revival = quantizer(), quantizer(0.0)
    train(alone, shares)
    train(without_revival, shares)
    for ours, theirs in zip(alone.layers, without_revival.layers, strict=True):
        assert not torch.equal(ours.codebook.vectors, theirs.codebook.vectors)  # it took place
    assert set(first) == set(alone.state_dict())
    for name, value in alone.state_dict().items():
        assert torch.equal(first[name], value) and torch.equal(second[name], value)


def in_two_processes(child: Any, work: Callable[[], object]) -> list[int]:
    """Run the work as torchrun would in two processes; return their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    started = [child(work, RANK=str(n), LOCAL_RANK=str(n), **rendezvous) for n in range(2)]
    return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in started]
