"""Settings: what cannot be is refused, what is given goes over what was stored, and all of it comes back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from audiovae.config import parse, read_json
from audiovae.data import FolderData, SynthData
from audiovae.errors import ConfigError
from audiovae.models import resolve
from audiovae.training import RunRecord, TrainConfig
from audiovae.training.config import continued, differences

Tiny = Callable[..., TrainConfig]


def test_a_config_comes_back_from_its_json(tmp_path: Path, tiny: Tiny) -> None:
    for config in (TrainConfig(), tiny(), tiny(data=FolderData(path=str(tmp_path)), init=tmp_path)):
        (tmp_path / "config.json").write_text(config.to_json())
        assert parse(TrainConfig, read_json(tmp_path / "config.json")) == config


def test_a_record_comes_back_and_a_folder_without_one_has_none(tmp_path: Path, tiny: Tiny) -> None:
    record = RunRecord(config=tiny(), total_steps=9, validate_every=3, fingerprint="f")
    assert RunRecord.read(tmp_path) is None
    (tmp_path / "config.json").write_text(record.to_json())
    assert RunRecord.read(tmp_path) == record


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"minutes": 1, "steps": 5}, "give minutes or steps, not both"),
        ({"batch_size": 5, "accumulate": 2}, "batch_size 5 must be a multiple of accumulate 2"),
        ({"batch_sise": 5}, "batch_sise is not a setting; did you mean 'batch_size'"),
        ({"precision": "fp16"}, "precision: .*'fp32'"),
        ({"steps": 0}, "steps: .*greater than or equal to 1, got 0"),
        ({"optimizer": {"clip": -1.0}}, "optimizer.clip: .*greater than or equal to 0, got -1.0"),
        ({"optimizer": {"learning_rat": 1.0}}, "did you mean 'learning_rate'"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        parse(TrainConfig, settings)


def test_without_a_length_a_run_takes_twenty_minutes() -> None:
    assert TrainConfig().length_in_minutes == 20.0
    assert TrainConfig(minutes=3).length_in_minutes == 3.0


def test_only_what_was_given_goes_over_the_stored_settings(tiny: Tiny) -> None:
    stored = tiny(optimizer={"learning_rate": 1e-4, "clip": 2.0}, seed=3)
    given = TrainConfig(optimizer={"clip": 3.0}, keep_last=4)  # type: ignore[arg-type]
    merged = continued(stored, given)
    assert list(differences(stored.model_dump(mode="json"), merged)) == [
        ("keep_last", 2, 4),
        ("optimizer.clip", 2.0, 3.0),
    ]
    assert continued(stored, stored) == stored.model_dump(mode="json")


def test_model_and_data_are_given_as_a_whole(tiny: Tiny) -> None:
    stored = tiny(data=SynthData(segment_seconds=0.7))
    merged = continued(stored, TrainConfig(data=FolderData(path="music")))
    assert merged["data"]["kind"] == "folder" and merged["model"] == stored.model.model_dump(
        mode="json"
    )
    other = resolve("oobleck", {"size": 0})
    assert continued(stored, TrainConfig(model=other))["model"] == other.model_dump(mode="json")  # type: ignore[arg-type]
