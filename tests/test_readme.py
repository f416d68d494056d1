"""What the README shows is run: its Python, its commands, its settings and its figures.

The trainings are cut to two steps of the test size, and nothing else is changed.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

import audiovae
from audiovae.api import training
from audiovae.audio.io import write
from audiovae.cli import main
from audiovae.models import resolve

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
SHORT: dict[str, Any] = {
    "steps": 2,
    "batch_size": 2,
    "precision": "fp32",
    "tensorboard": False,
}


def blocks(language: str) -> list[str]:
    """The code blocks of a language, in their order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """The words of every `audiovae` line in the shell blocks."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("audiovae ")]


@pytest.fixture
def music(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with some music, where `train` takes two steps with a small model."""
    (tmp_path / "music").mkdir()
    for name, pitch in (("song", 220.0), ("drum", 90.0), ("music/a", 300.0), ("music/b", 500.0)):
        t = torch.arange(30_000) / 44_100
        sound = 0.3 * torch.sin(2 * torch.pi * pitch * t).expand(2, -1)
        write(tmp_path / f"{name}.wav", sound, 44_100)
    real = training.run

    def run(config: training.TrainConfig, out: Path, **how: Any) -> Path:
        small = resolve("spec_frame", {"size": 0})
        short = {name: getattr(config, name) for name in config.model_fields_set - {"minutes"}}
        short["data"] = config.data.model_copy(update={"valid_crops": 2})
        return real(training.TrainConfig(**short | SHORT | {"model": small}), out, **how)

    monkeypatch.setattr(training, "run", run)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_session_runs_from_the_shell_and_from_python(
    music: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in commands():
        assert main(words) == 0, f"audiovae {shlex.join(words)}: {capsys.readouterr().err}"
    for name in ("song-heard.wav", "song.safetensors", "song-again.wav", "walk/5.wav", "new/4.wav"):
        assert (music / name).is_file()
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})
    assert (music / "song-louder.wav").is_file()


def test_the_settings_are_settings(music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = blocks("toml")
    (music / "settings.toml").write_text(text)
    seen = []
    monkeypatch.setattr(training, "run", lambda config, *_, **__: seen.append(config) or Path())
    audiovae.train("settings.toml")
    (config,) = seen
    given = tomllib.loads(text)
    assert config.minutes == given["minutes"]
    assert config.data.path == given["data"]["path"]
    assert config.model.bottleneck.latent_dim == given["model"]["latent_dim"]
    assert config.objective.beta.kind == given["objective"]["beta"]["kind"]


def test_the_figures_are_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = blocks("console")
    command, _, shown = block.partition("\n")
    assert main(shlex.split(command.removeprefix("$ audiovae"))) == 0
    assert capsys.readouterr().out == shown, "the model has changed: paste the new table"


def test_the_make_targets_are_there() -> None:
    rules = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\S+)", "\n".join(blocks("sh")), re.MULTILINE):
        assert re.search(rf"^{target}:", rules, re.MULTILINE)


def test_the_table_of_verbs_is_whole() -> None:
    table = TEXT.partition("| verb |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `([a-z ]+?)(?: [A-Z\[].*?)?` \|", table, re.MULTILINE)
    assert rows == list(audiovae.VERBS)


def test_the_table_of_extras_is_whole() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extra in project["optional-dependencies"]:
        assert f"| `{extra}` |" in TEXT
