"""The command line: flags from signatures, errors in one line with exit code 2, and nothing heavy for --help."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

import audiovae
from audiovae import cli
from audiovae.audio.io import inspect as inspect_sound
from audiovae.audio.io import write
from audiovae.checkpoint import save_model
from audiovae.cli import join_choices, main
from audiovae.errors import ConfigError
from audiovae.models import build, resolve


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two models, a sound and its latent."""
    folder = tmp_path_factory.mktemp("cli")
    for seed, name in enumerate(("model", "other")):
        torch.manual_seed(seed)
        save_model(folder / name, build(resolve("spec_frame", {"size": 0})))
    write(folder / "a.wav", 0.1 * torch.sin(torch.arange(3_000) / 20)[None], 22_050)
    write(folder / "six.wav", torch.zeros(6, 100), 22_050)
    audiovae.encode(folder / "model", folder / "a.wav", folder / "a.safetensors")
    return folder


@pytest.fixture
def at(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, as the working folder."""
    monkeypatch.chdir(place)
    return place


def refused(capsys: pytest.CaptureFixture[str], line: str) -> str:
    """Run a command line that must be refused; return its one line."""
    assert main(line.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("audiovae: ") and error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    "program",
    [
        "import audiovae",
        "from audiovae.cli import main; main(['--help'])",
        "from audiovae.cli import main; main(['--version'])",
        "from audiovae.cli import main; main(['data', '--help'])",
        "from audiovae.cli import main; assert main(['trian']) == 2",
    ],
)
def test_torch_is_not_imported_for(program: str) -> None:
    check = f"{program}\nimport sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True, capture_output=True)


def test_every_verb_is_a_name_of_the_package_with_the_same_summary() -> None:
    for words, (module, summary) in audiovae.VERBS.items():
        name = audiovae.python_name(words)
        verb = getattr(import_module(module), name)
        assert getattr(audiovae, name) is verb
        assert (inspect.getdoc(verb) or "").splitlines()[0] == summary


def test_every_public_name_loads_and_others_are_refused() -> None:
    for name in audiovae.__all__:
        assert getattr(audiovae, name) is not None
        assert name in dir(audiovae)
    with pytest.raises(AttributeError, match="module 'audiovae' has no attribute 'nothing'"):
        audiovae.nothing  # noqa: B018
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        cli.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_every_verb_that_computes_can_be_told_where_and_every_verb_to_be_quiet(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for words in audiovae.VERBS:
        assert main([*words.split(), "--help"]) == 0
        text = capsys.readouterr().out
        assert "--quiet" in text
        if words not in ("data scan", "info", "import", "export"):
            assert "--device" in text and "--threads" in text, words


def test_help_lists_every_verb_and_version_is_the_packages(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for words, (_, summary) in audiovae.VERBS.items():
        assert words.split()[0] in text
        assert " " in words or summary.split(" and ")[0][:40] in text
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == audiovae.__version__


def test_encode_decode_reconstruct(at: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("encode ./model a.wav b.safetensors --threads 1 --device cpu".split()) == 0
    latent_dim, frames = audiovae.encode(at / "model", "a.wav").z.shape
    told = f"wrote b.safetensors: {frames} frames of {latent_dim} numbers for 0.14 s"
    assert told in capsys.readouterr().out
    assert main("decode ./model b.safetensors b.wav --subtype PCM_16".split()) == 0
    assert main("reconstruct ./model a.wav --out c.flac --quiet".split()) == 0
    assert capsys.readouterr().out == "wrote b.wav\n"
    assert inspect_sound("b.wav") == (22_050, 1, 3_000, "WAV", "PCM_16")
    assert inspect_sound("c.flac")[:3] == (22_050, 1, 3_000)


def test_sample_and_interpolate(at: Path) -> None:
    line = "sample ./model --out drawn --n 2 --seconds 0.1 --prior standard --seed 4"
    assert main(line.split()) == 0
    assert sorted(p.name for p in (at / "drawn").iterdir()) == ["1.wav", "2.wav"]
    assert main("interpolate ./model a.wav a.wav --out walk.wav --steps 3 --spherical".split()) == 0
    assert inspect_sound("walk.wav").frames == 3 * 6_000


def test_info_of_a_folder_of_a_preset_and_of_a_preset_with_options(
    at: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = audiovae.info(at / "model").parameters
    for line in (
        "info ./model",
        "info --model spec_frame --model.size 0",
        "info spec_frame --model.size 0",
    ):
        assert main(line.split()) == 0
        assert f"parameters               {weights:,}\n" in capsys.readouterr().out


def test_train_from_a_file_and_flags_then_resume_and_diagnose(
    at: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (at / "tones.toml").write_text("batch_size = 2\nlog_every = 5\nsteps = 9\n")
    line = (
        "train tones.toml --model spec_frame --model.size 0 --data synth --data.segment-seconds 0.05"
        " --steps 2 --objective.weights.mel 2 --objective.beta.kind linear --no-tensorboard"
        " --out tones --quiet"
    )
    assert main(line.split()) == 0
    stored = json.loads((at / "tones" / "config.json").read_text())["config"]
    assert (stored["steps"], stored["batch_size"]) == (2, 2)
    assert stored["data"]["segment_seconds"] == 0.05
    assert stored["objective"]["weights"] == {"mel": 2.0}
    assert stored["objective"]["beta"]["kind"] == "linear"
    assert main([*line.split(), "--resume"]) == 0
    assert "holds a run already" in refused(capsys, line)
    assert main("diagnose ./tones synth --clips 2".split()) == 0
    assert "dimensions are active" in capsys.readouterr().out
    assert main("sample tones/ --out tone.wav --seconds 0.05".split()) == 0


def test_scan_prints_what_it_found(at: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("data scan . --quiet".split()) == 0
    assert main("data scan .".split()) == 0
    assert "too many channels" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("trian", "'trian' is not a verb; did you mean 'train'?"),
        ("data scn", "'scn' is not a verb; did you mean 'scan'?"),
        ("encode ./model a.wav b.safetensors --devise cpu", "Did you mean --device?"),
        ("encode ./model a.wav", "--out requires an argument"),
        ("encode ./model a.wav c.safetensors --threads two", 'convert "two" into int'),
        ("encode ./model a.wav c.safetensors --threads 0", "threads must be at least 1, got 0"),
        ("encode ./model none.wav c.safetensors", "there is no file none.wav"),
        ("encode ./model ../nowhere/a.wav c.safetensors", "there is no file ../nowhere/a.wav"),
        ("encode ./model a.safetensors c.safetensors", "a.safetensors is not sound; wav, flac"),
        ("encode ./model six.wav c.safetensors", "6 channels; one or two are understood, --per"),
        ("encode ./model a.wav a.safetensors", "a.safetensors exists; --force replaces it"),
        ("encode ./model a.wav c.npy", "a latent is written as .safetensors, not as '.npy'"),
        ("encode model a.wav c.safetensors", "write ./model for the folder"),
        ("diagnose --model ./none --data synth", "there is no none; a run folder or a model"),
        ("diagnose --model ./a --model.size 2", "takes no options: leave out size"),
        ("encode ./none a.wav c.safetensors", "there is no none; a run folder or a model folder"),
        ("encode spec_frame a.wav c.safetensors", "is a preset, a model without weights"),
        ("decode ./other a.safetensors c.wav", "the latent was made by the model"),
        ("decode ./model a.wav c.wav", "a.wav is not a latent file, or is damaged"),
        ("decode ./model a.safetensors c.txt", "sound is written as .wav"),
        ("decode ./model a.safetensors none/c.wav", "there is no folder none to write c.wav in"),
        ("reconstruct ./model a.wav a.wav", "a.wav exists; --force replaces it"),
        ("reconstruct ./model a.wav c.wav --subtype PCM_17", "did you mean 'PCM_16'?"),
        ("sample ./model", "--out requires an argument"),
        ("sample ./model --out c.wav", "--prior standard needs none"),
        ("info --model spec_frame --model.sise 0", "did you mean 'size'?"),
        ("info spec_fram", "did you mean 'spec_frame'"),
        ("train --model oobleckk --out c", "did you mean 'oobleck'?"),
        ("train --data model --out c", "write ./model for the folder"),
        ("train --data nots --out c", "did you mean 'notes'?"),
        ("train --data notes --data.segmentseconds 1 --out c", "did you mean 'segment_seconds'?"),
        ("train --model --out c", "--model wants a value"),
        ("train --optimizer.learning-rat 1 --out c", "Did you mean --optimizer.learning-rate?"),
        ("train --optimizer.learning-rate -1 --out c", "greater than 0, got '-1'"),
        ("train --steps 0 --out c", "steps: input should be greater than or equal to 1, got 0"),
        ("train none.toml --out c", "cannot read the settings in none.toml"),
        ("diagnose ./model ./none", "there is no folder ./none"),
    ],
)
def test_refusals_say_what_was_wrong(
    at: Path, capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    before = sorted(p.name for p in at.iterdir())
    assert message in refused(capsys, line)
    assert sorted(p.name for p in at.iterdir()) == before


def test_force_replaces(at: Path) -> None:
    assert main("decode ./model a.safetensors d.wav".split()) == 0
    assert main("decode ./model a.safetensors d.wav --force".split()) == 0


def test_quiet_keeps_warnings_to_itself(
    at: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    loud = build(resolve("spec_frame", {"size": 0}))
    with torch.no_grad():
        loud.speak.weight.mul_(100)  # type: ignore[operator, union-attr]
    save_model(at / "loud", loud)
    assert main("reconstruct ./loud a.wav l.wav --quiet".split()) == 0
    assert (capsys.readouterr().out, caplog.text) == ("", "")
    assert main("reconstruct ./loud a.wav l.wav --force".split()) == 0
    assert "samples above full scale were clipped" in caplog.text


@pytest.mark.parametrize(
    ("stop", "code"),
    [(KeyboardInterrupt(), 130), (PermissionError(13, "Permission denied", "a.wav"), 2)],
)
def test_interruptions_and_the_systems_refusals_have_their_codes(
    monkeypatch: pytest.MonkeyPatch, stop: BaseException, code: int
) -> None:
    def verb() -> None:
        raise stop

    monkeypatch.setattr("audiovae.api.evaluation.info", verb)
    assert main(["info"]) == code


def test_a_reader_that_leaves_is_no_error() -> None:
    info = f"{sys.executable} -m audiovae info spec_frame"
    command = f"{info} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "joined"),
    [
        ("--model a", {"preset": "a"}),
        ("--model=a --model.size=2", {"preset": "a", "size": 2}),
        ("--model.x.y-z 1e-4", {"x": {"y_z": 1e-4}}),
        ("--model.causal --model.name b", {"causal": True, "name": "b"}),
        ("--model.betas [0.5,1]", {"betas": [0.5, 1]}),
        ("--model 12", {"preset": "12"}),
    ],
)
def test_options_are_joined_to_their_name(words: str, joined: dict[str, object]) -> None:
    before, after = ["train", "--minutes", "5"], ["--quiet"]
    *rest, choice = join_choices([*before, *words.split(), *after])
    assert rest == before + after
    assert json.loads(choice.removeprefix("--model=")) == joined


def test_other_flags_that_only_begin_alike_stay() -> None:
    words = ["--modell", "x", "--data-folder", "y", "model", "--objective.model", "z"]
    assert join_choices(words) == words


def test_a_choice_without_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="--data wants a value: a name, or a folder with a slash"):
        join_choices(["train", "--data", "--quiet"])
