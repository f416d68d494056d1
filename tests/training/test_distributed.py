"""Two processes do what one process does with two micro-batches, bit for bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from audiovae.checkpoint import checkpoints
from audiovae.errors import ConfigError
from audiovae.training import TrainConfig, run
from audiovae.training.distributed import ALONE, World

Tiny = Callable[..., TrainConfig]


def in_two_processes(child: Any, work: Callable[[], object]) -> list[int]:
    """Run the work as torchrun would in two processes; return their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    started = [child(work, RANK=str(n), LOCAL_RANK=str(n), **rendezvous) for n in range(2)]
    return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in started]


def test_two_processes_equal_two_micro_batches(
    tmp_path: Path, tiny: Tiny, child: Any, ended: Any
) -> None:
    one = run(tiny(accumulate=2, steps=12), tmp_path / "one", quiet=True)
    two = tmp_path / "two"
    assert in_two_processes(child, lambda: run(tiny(steps=12), two, quiet=True)) == [0, 0]
    assert ended(two).differs_from(ended(one)) == []
    logs = [[line.split('"rate"')[0] for line in open(f / "log.jsonl")] for f in (one, two)]
    assert logs[0] == logs[1]


@pytest.mark.parametrize("more", [{}, {"alternate": True}, {"freeze_encoder": True}])
def test_two_processes_play_the_same_game(
    tmp_path: Path, tiny: Tiny, child: Any, ended: Any, more: dict[str, bool]
) -> None:
    """With discriminators, their optimizer and a random window."""
    judge = {"kind": "patches", "n_ffts": [64], "patch": 8, "width": 8, "depth": 1}
    game = {
        "discriminators": [judge],
        "start": 0.0,
        "warmup": 0.0,
        "every": 2,
        "window_seconds": 0.05,
    } | more
    settings = {"adversarial": game, "objective": {"name": "spectral"}, "steps": 8}
    one = run(tiny(accumulate=2, **settings), tmp_path / "one", quiet=True)
    two = tmp_path / "two"
    assert in_two_processes(child, lambda: run(tiny(**settings), two, quiet=True)) == [0, 0]
    assert ended(two).differs_from(ended(one)) == []


def toml_lines(table: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted keys; numbers, strings and lists are written alike in JSON and TOML."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from toml_lines(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name} = {json.dumps(value)}"


def test_torchrun_and_the_command_line_train_the_same(
    tmp_path: Path, tiny: Tiny, ended: Any
) -> None:
    """Really through the launcher and the command line: `torchrun --nproc-per-node 2 -m audiovae train`."""
    one = run(tiny(accumulate=2, steps=4), tmp_path / "one", quiet=True)
    settings = tiny(steps=4).model_dump(mode="json", exclude_none=True)
    (tmp_path / "settings.toml").write_text("\n".join(toml_lines(settings)))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = "--nproc-per-node 2 -m audiovae train settings.toml --out two --quiet".split()
    subprocess.run([*launcher, *command], cwd=tmp_path, check=True)
    assert ended(tmp_path / "two").differs_from(ended(one)) == []


def test_two_processes_resume_and_skip_together(
    tmp_path: Path, tiny: Tiny, child: Any, ended: Any, poison: Any
) -> None:
    poison({3, 9})  # item 0: the first process's; the second must skip it too
    settings = tiny(steps=12)
    one = run(tiny(accumulate=2, steps=12), tmp_path / "one", quiet=True)
    two = tmp_path / "two"

    def die_at_step_7() -> None:
        poison({3, 9}, dies_at=7)
        run(settings, two, quiet=True)

    assert in_two_processes(child, die_at_step_7) != [0, 0]
    assert in_two_processes(child, lambda: run(settings, two, resume=True, quiet=True)) == [0, 0]
    assert ended(two).differs_from(ended(one)) == []
    assert [line for line in open(two / "log.jsonl") if "skipped" in line] == [
        line for line in open(one / "log.jsonl") if "skipped" in line
    ]


def test_an_error_of_the_first_process_ends_both(
    tmp_path: Path, tiny: Tiny, child: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    codes = in_two_processes(child, lambda: run(tiny(), tmp_path / "file", quiet=True))
    assert codes == [1, 1]
    assert capfd.readouterr().err.count("OutputError: ") == 2


def test_a_signal_to_one_process_stops_both(
    tmp_path: Path, tiny: Tiny, child: Any, ended: Any
) -> None:
    one = run(tiny(accumulate=2), tmp_path / "one", quiet=True)
    two = tmp_path / "two"

    def stopped() -> None:
        if os.environ["RANK"] == "1":
            threading.Thread(target=signal_when_begun, args=(two,), daemon=True).start()
        run(tiny(), two, quiet=True)

    assert in_two_processes(child, stopped) == [143, 143]
    assert 0 < ended(two).values["standing"]["step"] < 24
    assert in_two_processes(child, lambda: run(None, two, resume=True, quiet=True)) == [0, 0]
    assert ended(two).differs_from(ended(one)) == []


def test_processes_on_another_machine_need_not_see_the_run_folder(
    tmp_path: Path, tiny: Tiny, child: Any, ended: Any
) -> None:
    """What is there, and whether it is finished, the first process alone can say."""
    one = run(tiny(accumulate=2), tmp_path / "one", quiet=True)
    two = tmp_path / "two"
    shutil.copytree(one, two)
    shutil.rmtree(checkpoints(two)[-1])

    def resumed() -> None:
        here = two if os.environ["RANK"] == "0" else tmp_path / "elsewhere"
        run(None, here, resume=True, quiet=True)

    record = (two / "config.json").read_text().replace('"accumulate": 2', '"accumulate": 1')
    (two / "config.json").write_text(record)
    assert in_two_processes(child, resumed) == [0, 0]
    assert ended(two).differs_from(ended(one)) == []
    assert in_two_processes(child, resumed) == [0, 0]  # it is finished: neither begins
    assert not (tmp_path / "elsewhere").exists()


def signal_when_begun(run_folder: Path) -> None:
    while not checkpoints(run_folder):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)


def test_shares_number_the_items_over_all_processes() -> None:
    shares = [World(rank, 2).share(12, 3) for rank in range(2)]
    assert [item for share in shares for part in share for item in part] == list(range(12))
    assert {len(part) for share in shares for part in share} == {2}


def test_items_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"batch_size 10 does not divide .* 4 process.* is 12"):
        World(0, 4).share(10, 1)


def test_alone_every_answer_is_ones_own() -> None:
    assert ALONE.any(True) and not ALONE.any(False)
    assert ALONE.mean([1.0, 2.0]) == [1.0, 2.0]
    assert ALONE.gather("a") == ["a"]
    assert ALONE.from_first(lambda: 3) == ALONE.first_goes_first(lambda: 3) == 3
