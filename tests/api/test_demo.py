"""The demo as a stranger uses it: one call, a page and a model; what is there already is not lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from audiovae import checkpoint
from audiovae.api.demo import Demo, demo
from audiovae.api.showcase import PREFERRED, chosen_ends, chosen_notes, read_curves
from audiovae.cli import main
from audiovae.data.notes import Note, NotesData
from audiovae.errors import ConfigError, OutputError

NOTES = NotesData(
    programs=(24, 26),
    pitches=(57, 66),
    velocities=(100,),
    hold_seconds=0.2,
    release_seconds=0.1,
    segment_seconds=0.3,
    valid_share=0.2,
)
SMALL = {"preset": "spec_frame", "size": 0}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    out = tmp_path_factory.mktemp("demo") / "demo"
    return demo(out, steps=2, model=SMALL, data=NOTES, threads=1, quiet=True)


def test_the_page_has_every_part(made: Demo) -> None:
    page = made.report.read_text(encoding="utf-8")
    for heading in (
        "The figures",
        "Notes it has never heard",
        "From one instrument to another",
        "Sounds that never were",
        "How it learned",
        "What each latent dimension carries",
        "How it was made",
    ):
        assert f"<h2>{heading}</h2>" in page
    held_out_programs = page.count("<article>")
    assert 1 <= held_out_programs <= 3
    assert page.count("<audio") == 2 * held_out_programs + 7 + 6
    assert "spec_frame" in page
    assert "nan" not in page[: page.index("<h2>Notes")].lower().replace("san", "").split()


def test_the_figures_are_those_of_the_page(made: Demo) -> None:
    page = made.report.read_text(encoding="utf-8")
    assert f"<b>{made.figures['mel']:.2f}</b>" in page
    assert f"<b>{made.figures['kl']:,.0f} nats/s</b>" in page
    assert min(made.figures["encode_speed"], made.figures["decode_speed"]) > 0


def test_the_run_is_a_model_for_every_other_verb(made: Demo) -> None:
    model = checkpoint.load(made.run)
    assert model.config.model_dump()["kind"] == "spec_frame"
    assert f"audiovae reconstruct {made.run}" in made.report.read_text(encoding="utf-8")


def test_a_demo_that_is_there_is_kept_unless_forced(made: Demo) -> None:
    before = made.report.read_bytes()
    with pytest.raises(OutputError, match="holds a demo already; --force replaces it"):
        demo(made.report.parent, steps=1, model=SMALL, data=NOTES, quiet=True)
    assert made.report.read_bytes() == before


def test_force_replaces_a_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    (tmp_path / "run" / "old").write_text("")
    words = ["demo", "--out", str(tmp_path), "--force", "--steps", "1", "--threads", "1"]
    options = [
        *("--model.size", "0", "--data.programs", "[24, 25]", "--data.pitches", "[57, 66]"),
        *("--data.hold_seconds", "0.2", "--data.release_seconds", "0.1"),
        *("--data.segment_seconds", "0.3", "--data.valid_share", "0.2"),
    ]
    assert main([*words, *options]) == 0
    assert f"open {tmp_path / 'report.html'} in a browser" in capsys.readouterr().out
    assert not (tmp_path / "run" / "old").exists()
    assert (tmp_path / "report.html").is_file()


def test_a_folder_that_is_no_run_is_never_removed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="is not a training run, so it is not replaced"):
        demo(tmp_path, steps=1, model=SMALL, data=NOTES, force=True, quiet=True)
    assert (tmp_path / "run" / "thesis.txt").read_text() == "years of work"


def test_other_data_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"wants notes, not synth; .*audiovae train"):
        demo(tmp_path / "demo", data="synth")
    assert not (tmp_path / "demo").exists()


def test_a_clip_model_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"this model takes clips of one; leave clip_seconds out"):
        demo(tmp_path / "demo", model={"preset": "spec_conv", "size": 0, "clip_seconds": 0.3})
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("preset", ["hierarchy", "dac_16k"])
def test_a_model_of_codes_is_refused_before_anything_is_done(tmp_path: Path, preset: str) -> None:
    with pytest.raises(
        ConfigError, match=r"draws from a Gaussian latent, and .* bottleneck is rvq"
    ):
        demo(tmp_path / "demo", model={"preset": preset, "size": 0})
    assert not (tmp_path / "demo").exists()


def test_the_page_of_a_spectrogram_model_plays_both_inverses(tmp_path: Path) -> None:
    few = NOTES.model_copy(update={"programs": (24, 25)})
    model = {"preset": "spec_conv", "size": 0}
    made = demo(tmp_path, steps=1, model=model, data=few, threads=1, quiet=True)
    page = made.report.read_text(encoding="utf-8")
    for inverse in ("learned", "griffin-lim"):
        assert f"reconstruction by {inverse}, mel distance" in page
    assert page.count("<audio") == 3 * page.count("<article>") + 7 + 6


def test_notes_to_show_are_one_a_program_the_known_ones_first() -> None:
    notes = [Note(p, k, v, str(p)) for p in (3, 40, 0) for k in (36, 61) for v in (60, 110)]
    assert chosen_notes(notes, 8) == [
        Note(0, 61, 110, "0"),
        Note(40, 61, 110, "40"),
        Note(3, 61, 110, "3"),
    ]
    assert [n.program for n in chosen_notes(notes, 1)] == [PREFERRED[0]]


def test_the_walk_goes_between_families_over_a_small_step() -> None:
    notes = [
        Note(0, 50, 100, ""),
        Note(1, 50, 100, ""),
        Note(40, 57, 100, ""),
        Note(40, 52, 100, ""),
    ]
    assert chosen_ends(notes) == (Note(0, 50, 100, ""), Note(40, 52, 100, ""))
    assert chosen_ends(notes[:1]) == (notes[0], notes[0])


def test_curves_are_read_from_the_log(tmp_path: Path) -> None:
    lines = [
        {"step": 10, "loss": 3.0, "mel": 2.0, "learning_rate": 1e-3},
        {"step": 10, "validation": {"mel": 2.5, "si_sdr": None}, "alarms": []},
        {"step": 15, "skipped": "non-finite loss", "sources": []},
        {"step": 20, "loss": 2.0, "mel": 1.0},
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    curves = {c.name: (list(c.steps), list(c.values)) for c in read_curves(tmp_path / "log.jsonl")}
    assert curves == {
        "loss": ([10, 20], [3.0, 2.0]),
        "mel": ([10, 20], [2.0, 1.0]),
        "validation mel": ([10], [2.5]),
    }
