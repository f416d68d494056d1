"""train: settings from files, tables and flags come together, and every verb takes the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import audiovae
from audiovae.api import training
from audiovae.config import read_json
from audiovae.data import SynthData
from audiovae.errors import ConfigError, OutputError
from audiovae.models import resolve
from audiovae.training.config import TrainConfig

TINY: dict[str, Any] = {
    "model": {"preset": "spec_frame", "size": 0},
    "data": {"preset": "synth", "segment_seconds": 0.1, "valid_crops": 2},
    "batch_size": 2,
    "tensorboard": False,
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What `run` is asked to do, instead of doing it."""
    calls: list[Any] = []

    def run(config: TrainConfig | None, folder: Path, **how: Any) -> Path:
        calls.append((config, folder, how))
        return folder

    monkeypatch.setattr(training, "run", run)
    return calls


def test_flags_win_over_the_file_and_the_file_over_the_defaults(
    asked: list[Any], tmp_path: Path
) -> None:
    (tmp_path / "a.toml").write_text(
        'seed = 3\nminutes = 7\n[model]\npreset = "spec_frame"\nsize = 1\nchannels = 1\n'
        '[data]\nkind = "synth"\n[objective]\nfree_bits = 0.5\n[objective.beta]\nkind = "linear"\n'
    )
    audiovae.train(
        tmp_path / "a.toml",
        model={"size": 0},
        out=tmp_path / "run",
        seed=4,
        objective={"beta": {"high": 0.1}},
    )
    ((config, folder, how),) = asked
    assert config.model == resolve("spec_frame", {"size": 0, "channels": 1})
    assert config.data == SynthData()
    assert (config.seed, config.minutes) == (4, 7.0)
    assert config.objective.free_bits == 0.5
    assert (config.objective.beta.kind, config.objective.beta.high) == ("linear", 0.1)
    assert (folder, how) == (tmp_path / "run", {"resume": False, "quiet": False})


def test_only_what_is_given_is_set_so_that_a_resumed_run_keeps_the_rest(
    asked: list[Any], tmp_path: Path
) -> None:
    audiovae.train(out=tmp_path / "run", resume=True)
    audiovae.train(out=tmp_path / "run", resume=True, threads=1)
    assert asked[0][0] is None
    assert asked[1][0].model_fields_set == {"threads"}


def test_the_default_folder_tells_model_data_and_unusual_settings_apart(
    asked: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for settings in ({}, {"seed": 0}, {"seed": 1}, {"data": "./music"}):
        audiovae.train(**settings)  # type: ignore[arg-type]
    plain, same, seeded, music = (folder.as_posix() for _, folder, _ in asked)
    assert plain == same != seeded
    assert plain.startswith("runs/spec_frame-notes-")
    assert music.startswith("runs/spec_frame-music-")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sed = 3", "sed is not a setting; did you mean 'seed'"),
        ("seed = 'x'", "seed: .*, got 'x'"),
        ("minutes = 1\nsteps = 2", "give minutes or steps, not both"),
        (
            "[objective]\nfree_bit = 1",
            "objective.free_bit is not a setting; did you mean 'free_bits'",
        ),
        ("seed =", "cannot read the settings in .*a.toml"),
        ("model = 'spec_fram'", "did you mean 'spec_frame'"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        audiovae.train(tmp_path / "a.toml", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_is_a_model_for_every_verb_and_says_what_it_was(run_folder: Path) -> None:
    stored = read_json(run_folder / "config.json")["config"]
    assert stored["steps"] == 3
    assert stored["model"]["kind"] == "spec_frame"
    assert audiovae.info(run_folder).model_hash == audiovae.load(run_folder).model_hash
    sound = audiovae.sample(run_folder, seconds=0.02)[0]
    assert audiovae.reconstruct(run_folder, sound).samples.shape == sound.samples.shape


def test_a_finished_run_stays_and_another_in_its_place_is_refused(run_folder: Path) -> None:
    before = audiovae.load(run_folder).model_hash
    assert audiovae.train(out=run_folder, resume=True, quiet=True) == run_folder
    with pytest.raises(OutputError, match="holds a run already; go on with --resume"):
        audiovae.train(**TINY, steps=1, out=run_folder, quiet=True)
    assert audiovae.load(run_folder).model_hash == before


def test_fine_tuning_starts_from_a_model(run_folder: Path, tmp_path: Path) -> None:
    tuned = audiovae.train(
        **{key: value for key, value in TINY.items() if key != "model"},
        init=run_folder,
        steps=1,
        out=tmp_path / "tuned",
        quiet=True,
    )
    assert audiovae.load(tuned).config == audiovae.load(run_folder).config
