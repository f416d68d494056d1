"""A run survives SIGKILL, signals, damage, full disks and bad numbers, and is bit for bit the run without them."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from audiovae.checkpoint import checkpoints, find, load
from audiovae.data import SynthData
from audiovae.errors import CheckpointError, ConfigError, OutputError, TrainingError
from audiovae.models import resolve
from audiovae.training import RunRecord, TrainConfig, choose_device, run
from audiovae.training.checkpoints import RunFolder
from audiovae.training.interrupt import Interrupt
from audiovae.training.tracking import Log

Tiny = Callable[..., TrainConfig]


def figures(folder: Path) -> list[dict[str, Any]]:
    """The lines of the log without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "rate"} for line in lines]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny: Tiny) -> Path:
    """A tiny run that nothing disturbed; tests only read it."""
    return run(tiny(), tmp_path_factory.mktemp("runs") / "whole", quiet=True)


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A copy of it to break."""
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def test_ten_kills_at_random_moments_change_nothing(
    tmp_path: Path, whole: Path, tiny: Tiny, child: Any, ended: Any
) -> None:
    chance, kills, attempt = random.Random(0), 0, 0
    while kills < 10:
        folder, finished = tmp_path / f"killed_{attempt}", False
        attempt += 1
        while not finished:
            process = child(lambda: run(tiny(), folder, resume=True, quiet=True))  # noqa: B023
            time.sleep(chance.uniform(0.0, 0.5) if kills < 10 else 0)
            if kills < 10:
                os.kill(process, signal.SIGKILL)
            _, status = os.waitpid(process, 0)
            finished = os.WIFEXITED(status)
            kills += not finished
            assert not finished or os.WEXITSTATUS(status) == 0
        assert ended(folder).differs_from(ended(whole)) == []
        assert figures(folder) == figures(whole)
        assert find(folder).name == find(whole).name


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_at_the_end_of_the_step_and_exits(
    tmp_path: Path, whole: Path, tiny: Tiny, child: Any, ended: Any, number: int, code: int
) -> None:
    folder = tmp_path / "stopped"
    never = tiny(checkpoint_every=1_000)  # so that only the signal (or a new best) writes one
    process = child(lambda: run(never, folder, quiet=True))
    while not (folder / "log.jsonl").exists() or not figures(folder):
        time.sleep(0.01)
    os.kill(process, number)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == code
    stopped = ended(folder).values["standing"]["step"]
    assert 0 < stopped < 24
    run(never, folder, resume=True, quiet=True)
    assert ended(folder).differs_from(ended(whole)) == []
    assert figures(folder) == figures(whole)


def test_a_second_signal_stops_at_once(tmp_path: Path, child: Any) -> None:
    said = tmp_path / "said"

    def busy() -> None:
        with Interrupt(lambda text: print(text, file=said.open("w"), flush=True)):
            time.sleep(20)
            time.sleep(20)

    process = child(busy)
    for _ in range(2):
        time.sleep(0.2)
        os.kill(process, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 143
    assert "once more stops at once" in said.read_text()


def test_signals_are_as_before_after_a_run(tmp_path: Path, tiny: Tiny) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    run(tiny(steps=1), tmp_path / "run", quiet=True)
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_finished_run_returns_at_once_and_a_run_without_checkpoint_begins(
    tmp_path: Path, whole: Path, tiny: Tiny, ended: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}
    assert run(None, whole, resume=True, quiet=True) == whole
    monkeypatch.setattr(
        import_module("audiovae.training.run"), "open_for", None
    )  # its data may be gone
    assert run(None, whole, resume=True, quiet=True) == whole
    monkeypatch.undo()
    assert {path: path.stat().st_mtime_ns for path in before} == before
    fresh = run(tiny(), tmp_path / "fresh", resume=True, quiet=True)
    assert ended(fresh).differs_from(ended(whole)) == []


def test_a_run_to_resume_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        OutputError, match=r"there is no run in .*nowhere to resume; with its settings"
    ):
        run(None, tmp_path / "nowhere", resume=True, quiet=True)
    assert not (tmp_path / "nowhere").exists()


def test_a_run_is_not_written_over(whole: Path, tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"whole holds a run already; go on with --resume"):
        run(tiny(), whole, quiet=True)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"file is a file; a run needs a folder"):
        run(tiny(), tmp_path / "file", quiet=True)


def test_a_skipped_update_is_logged_with_its_sounds_and_leaves_the_rest_finite(
    tmp_path: Path, tiny: Tiny, poison: Any, ended: Any
) -> None:
    poison({1, 5})
    folder = run(tiny(steps=8), tmp_path / "run", quiet=True)
    skipped = [line for line in figures(folder) if "skipped" in line]
    assert [(line["step"], line["skipped"]) for line in skipped] == [
        (2, "non-finite loss"),
        (6, "non-finite loss"),
    ]
    assert all(len(line["sources"]) == 4 for line in skipped)
    assert all(t.isfinite().all() for t in ended(folder).tensors.values())
    assert ended(folder).tensors["training.safetensors:optimizer.0.step"] == 6  # of 8 updates


def test_ten_skipped_updates_in_a_row_end_the_run_with_advice(
    tmp_path: Path, tiny: Tiny, poison: Any, ended: Any
) -> None:
    poison(set(range(5, 24)))
    folder = tmp_path / "run"
    with pytest.raises(
        TrainingError, match=r"10 updates in a row .* step 15 .* lower .*learning_rate"
    ):
        run(tiny(), folder, quiet=True)
    assert ended(folder).values["standing"] == {
        "step": 14,
        "best": ended(folder).values["standing"]["best"],
        "skipped_in_a_row": 9,
    }
    poison(
        set(range(5, 14))
    )  # the sounds are repaired: one more would have been too many, no more come
    run(None, folder, resume=True, quiet=True)
    assert ended(folder).values["standing"]["step"] == 24


@pytest.mark.parametrize("damage", ["flip", "cut", "missing"])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(
    copy: Path, whole: Path, ended: Any, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    newest = checkpoints(copy)[-1]
    break_file(newest / "training.safetensors", damage)
    run(None, copy, resume=True, quiet=True)  # quiet keeps back progress, not this
    said = " ".join(capsys.readouterr().err.split())
    assert "training.safetensors is" in said.replace("- ", "-")
    assert "the checkpoint before it is used" in said
    assert (copy / "checkpoints" / "damaged_step_00000024").is_dir()
    assert ended(copy).differs_from(ended(whole)) == []
    assert figures(copy) == figures(whole)


def break_file(path: Path, damage: str) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(bytes(data) if damage == "flip" else bytes(data[:-1]))


def test_a_run_with_only_damaged_checkpoints_is_refused(copy: Path) -> None:
    for folder in checkpoints(copy):
        break_file(folder / "model.safetensors", "flip")
    for _ in range(2):  # nothing is moved, so that a second try does not begin anew
        with pytest.raises(CheckpointError, match=r"none of the \d checkpoint\(s\) in .* is whole"):
            run(None, copy, resume=True, quiet=True)


@pytest.mark.parametrize(
    ("why", "message"), [("newer", "update audiovae"), ("unreadable", "cannot read")]
)
def test_what_is_not_damaged_is_not_set_aside(
    copy: Path, why: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is away for a moment, or a newer audiovae's checkpoint, costs nothing that was trained."""
    shutil.rmtree(checkpoints(copy)[-1])
    newest = checkpoints(copy)[-1] / "manifest.json"
    before = sorted(copy.rglob("*"))
    if why == "newer":
        newest.write_text(json.dumps(json.loads(newest.read_text()) | {"format": 99}))
    read_bytes = Path.read_bytes

    def failing(path: Path) -> bytes:
        if why == "unreadable" and path == newest:
            raise OSError(errno.EIO, "Input/output error")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", failing)
    for _ in range(2):
        with pytest.raises(CheckpointError, match=message):
            run(None, copy, resume=True, quiet=True)
        assert sorted(copy.rglob("*")) == before


def test_a_best_checkpoint_that_is_gone_is_no_longer_named(copy: Path, whole: Path) -> None:
    """The one before a damaged newest one may name a best that a later best had replaced."""
    before = checkpoints(copy)[-2]
    best, _ = json.loads((before / "training.json").read_text())["standing"]["best"]
    assert not (copy / "checkpoints" / f"step_{best:08d}").exists()
    break_file(checkpoints(copy)[-1] / "training.safetensors", "flip")
    folder = RunFolder(copy)
    folder.restore(load(whole), print)
    assert folder.standing.best is None
    assert find(copy) == before


def test_a_full_disk_leaves_the_last_checkpoint_whole(
    tmp_path: Path, whole: Path, tiny: Tiny, ended: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, whole_writes = tmp_path / "run", os.fsync

    def full(handle: int) -> None:
        if len(list(folder.glob("checkpoints/.step_00000006*/*"))) > 2:  # in the middle of it
            raise OSError(errno.ENOSPC, "No space left on device")
        whole_writes(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match=r"step 6 .*No space left.*step 4.*--resume"):
            run(tiny(), folder, quiet=True)
    assert ended(folder).values["standing"]["step"] == 4
    assert not list((folder / "checkpoints").glob(".*"))
    run(None, folder, resume=True, quiet=True)
    assert ended(folder).differs_from(ended(whole)) == []


def test_a_log_that_cannot_be_written_ends_in_a_clear_error(
    tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Log, line: dict[str, Any]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Log, "_write", full)
    with pytest.raises(OutputError, match=r"stopped: .*No space left.*--resume"):
        run(tiny(), tmp_path / "run", quiet=True)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"seed": 1}, "seed was 0, now 1"),
        ({"steps": 30}, "steps was 24, now 30"),
        ({"batch_size": 8}, "batch_size was 4, now 8"),
        ({"accumulate": 2}, "accumulate was 1, now 2"),
        ({"data": SynthData(segment_seconds=0.2)}, r"data.segment_seconds was 0.1, now 0.2"),
        ({"model": resolve("spec_frame", {"size": 0})}, r"model.\w+"),
        ({"objective": {"name": "mission"}}, r"objective.name was elbo, now mission"),
        ({"optimizer": {"ema_decay": 0.9}}, r"optimizer.ema_decay was 0.999, now 0.9"),
    ],
)
def test_a_change_that_would_make_another_run_is_refused(
    whole: Path, tiny: Tiny, change: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=f"keeps its settings: .*{complaint}.*--init"):
        run(tiny(**change), whole, resume=True, quiet=True)


def test_a_change_that_is_accepted_is_said_if_it_matters(
    copy: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(checkpoints(copy)[-1])
    run(tiny(checkpoint_every=3, optimizer={"learning_rate": 1e-4}), copy, resume=True)
    said = " ".join(capsys.readouterr().err.split())
    assert "optimizer.learning_rate changes from 0.001 to 0.0001" in said
    assert "checkpoint_every" not in said
    record = RunRecord.read(copy)
    assert record is not None and record.config.optimizer.learning_rate == 1e-4


def test_settings_that_are_not_given_are_those_of_the_run(copy: Path, tiny: Tiny) -> None:
    shutil.rmtree(checkpoints(copy)[-1])
    run(TrainConfig(keep_last=5, data=tiny().data), copy, resume=True, quiet=True)
    record = RunRecord.read(copy)
    assert record is not None and record.config == tiny(keep_last=5)


def test_changed_data_is_refused(copy: Path) -> None:
    shutil.rmtree(checkpoints(copy)[-1])
    record = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(record | {"fingerprint": "another"}))
    with pytest.raises(TrainingError, match=r"data is not what it was .* --init"):
        run(None, copy, resume=True, quiet=True)


def test_a_run_of_a_newer_audiovae_is_refused(copy: Path) -> None:
    record = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(record | {"format": 2}))
    with pytest.raises(CheckpointError, match=r"config.json has format 2.*update audiovae"):
        run(None, copy, resume=True, quiet=True)


def test_minutes_become_steps_that_a_run_of_steps_repeats(
    tmp_path: Path, tiny: Tiny, ended: Any
) -> None:
    timed = run(tiny(steps=None, minutes=0.03), tmp_path / "timed", quiet=True)
    record = RunRecord.read(timed)
    assert record is not None and record.total_steps == ended(timed).values["standing"]["step"] > 1
    stepped = run(tiny(steps=record.total_steps), tmp_path / "stepped", quiet=True)
    assert ended(timed).differs_from(ended(stepped)) == []  # the measured steps left no trace


def test_init_starts_from_the_weights_of_a_model(whole: Path, tmp_path: Path, tiny: Tiny) -> None:
    start, settings = load(whole), tiny(steps=1, optimizer={"learning_rate": 1e-30}, init=whole)
    tuned = load(run(settings, tmp_path / "tuned", quiet=True))
    assert all(
        torch.allclose(a, b) for a, b in zip(start.parameters(), tuned.parameters(), strict=True)
    )
    other = tiny(model=resolve("spec_frame", {"size": 0}), init=whole)
    with pytest.raises(ConfigError, match=r"another model than the settings name"):
        run(other, tmp_path / "other", quiet=True)


def test_a_tuned_run_goes_on_without_the_model_that_it_began_from(
    tmp_path: Path, whole: Path, tiny: Tiny, ended: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = tmp_path / "start"
    shutil.copytree(whole, start)
    monkeypatch.chdir(tmp_path)
    straight = run(tiny(steps=4, init="./start"), tmp_path / "straight", quiet=True)
    cut = tmp_path / "cut"
    shutil.copytree(straight, cut)
    shutil.rmtree(checkpoints(cut)[-1])
    begun = tmp_path / "begun"
    shutil.copytree(straight, begun)
    shutil.rmtree(begun / "checkpoints")
    monkeypatch.chdir("/")  # a relative name is kept as an absolute one
    again = run(None, begun, resume=True, quiet=True)
    assert ended(again).differs_from(ended(straight)) == []

    shutil.rmtree(start)
    assert ended(run(None, cut, resume=True, quiet=True)).differs_from(ended(straight)) == []

    shutil.rmtree(begun / "checkpoints")
    shutil.copytree(tmp_path / "cut", start)  # another model under its name
    with pytest.raises(TrainingError, match=r"init .*start is not what it was"):
        run(None, begun, resume=True, quiet=True)


def test_the_best_checkpoint_is_what_load_takes_and_what_pruning_keeps(whole: Path) -> None:
    validations = {
        line["step"]: line["validation"]["negative_elbo"]
        for line in figures(whole)
        if "validation" in line
    }
    assert sorted(validations) == [7, 14, 21, 24]
    best = min(validations, key=validations.__getitem__)
    assert find(whole).name == f"step_{best:08d}"
    assert {folder.name for folder in checkpoints(whole)} == {
        f"step_{step:08d}" for step in {best, 22, 24}
    }
    statistics = load(whole).statistics
    assert statistics is not None and int(statistics.frames) > 0


def test_the_caller_keeps_threads_and_chance(tmp_path: Path, tiny: Tiny) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    before = torch.get_num_threads()
    run(tiny(steps=1, threads=3 - before), tmp_path / "run", quiet=True)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == before


def test_devices_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(ConfigError, match="device cuda is not there"):
        choose_device("cuda")


def test_a_run_folder_that_cannot_be_written_is_an_output_error(tmp_path: Path, tiny: Tiny) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"cannot write the run folder .*file/run"):
        run(tiny(), tmp_path / "file" / "run", quiet=True)
