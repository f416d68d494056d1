"""Names and options to configs: what `--model` and `--data` mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from audiovae.api.choices import data_config, merged, model_config, overlaid
from audiovae.data import FolderData, NotesData, SynthData
from audiovae.errors import ConfigError
from audiovae.models import SpecFrameConfig, resolve


def test_a_model_by_name_by_table_and_by_config_is_one_model() -> None:
    config = resolve("spec_frame", {"size": 0})
    assert model_config({"preset": "spec_frame", "size": 0}) == config
    assert model_config(config) is config
    assert model_config(config.model_dump()) == config
    assert model_config("spec_frame") == model_config(None) == resolve("spec_frame", {})


def test_options_without_a_name_belong_to_the_default_model() -> None:
    assert model_config({"size": 0}) == resolve("spec_frame", {"size": 0})


def test_preset_arguments_come_first_then_fields() -> None:
    config = model_config({"preset": "spec_frame", "size": 0, "bottleneck": {"latent_dim": 3}})
    assert isinstance(config, SpecFrameConfig)
    assert config.bottleneck.latent_dim == 3
    assert config.width == resolve("spec_frame", {"size": 0}).width  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("spec_fram", "did you mean 'spec_frame'"),
        ({"preset": "spec_frame", "sise": 2}, "did you mean 'size'"),
        ({"preset": "spec_frame", "size": "big"}, "size"),
        (7, "model is a name or a table of options, got 7"),
    ],
)
def test_a_model_that_cannot_be_is_refused(choice: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        model_config(choice)  # type: ignore[arg-type]


def test_a_word_without_a_slash_is_a_kind_of_data_and_with_one_a_folder() -> None:
    assert data_config("notes") == data_config(None) == NotesData()
    assert data_config({"preset": "synth", "segment_seconds": 2}) == SynthData(segment_seconds=2)
    assert data_config("./music") == FolderData(path="./music")
    assert data_config("music/") == data_config({"path": "music/"}) == FolderData(path="music/")
    assert data_config(".") == FolderData(path=".")


def test_a_folder_without_a_slash_is_told_how_to_write_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "music").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"write \./music for the folder"):
        data_config("music")


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("note", r"did you mean 'notes'\?; write \./note for a folder"),
        ({"kind": "sinth"}, "data.kind 'sinth' .* did you mean 'synth'"),
        ({"preset": "notes", "segment_secs": 1}, "did you mean 'segment_seconds'"),
        (
            {"preset": "notes", "segment_seconds": -1},
            "data.segment_seconds: .* greater than 0, got -1",
        ),
    ],
)
def test_data_that_cannot_be_is_refused(choice: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        data_config(choice)  # type: ignore[arg-type]


def test_options_change_the_choice_below_and_a_name_replaces_it() -> None:
    below = {"preset": "spec_frame", "size": 2, "bottleneck": {"latent_dim": 3}}
    assert merged(below, None) is below
    assert merged(below, {"size": 1}) == below | {"size": 1}
    assert merged("oobleck", {"size": 1}) == {"preset": "oobleck", "size": 1}
    assert merged(below, "oobleck") == "oobleck"
    assert merged(below, {"preset": "oobleck"}) == {"preset": "oobleck"}


def test_tables_are_laid_over_tables_and_the_lower_one_stays_as_it_was() -> None:
    below = {"a": {"b": 1, "c": 2}, "d": 3}
    assert overlaid(below, {"a": {"c": 4}, "d": {"e": 5}}) == {"a": {"b": 1, "c": 4}, "d": {"e": 5}}
    assert below == {"a": {"b": 1, "c": 2}, "d": 3}
