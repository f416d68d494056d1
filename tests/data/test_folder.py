"""The folder data set: pure in (seed, step, item), fair to few files, never from the other side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from audiovae.config import parse
from audiovae.data import DataConfig, Dataset, FolderData, open_dataset
from audiovae.data.augment import Augment
from audiovae.errors import AudioError, ConfigError, DataError

RATE = 8_000
PLAIN = Augment(gain=0, polarity=0, phase=0, swap=0)


def write(path: Path, x: np.ndarray) -> None:
    """Write samples [T] or [T, C] as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, x, RATE, subtype="FLOAT")


def ramp(seconds: float, base: float) -> np.ndarray:
    """Samples that say which file and where: base plus the sample's number in millionths."""
    return (base + np.arange(round(seconds * RATE)) * 1e-6).astype(np.float32)


def opened(folder: Path, *, channels: int = 1, multiple_of: int = 1, **settings: object) -> Dataset:
    """The folder with crops of a tenth of a second and nothing changed in them."""
    config = FolderData(
        path=str(folder),
        **{"segment_seconds": 0.1, "valid_seconds": 0.1, "augment": PLAIN} | settings,
    )
    return open_dataset(config, sample_rate=RATE, channels=channels, multiple_of=multiple_of)


def many(folder: Path, count: int = 40) -> Path:
    """Files of one second each, told apart by their base."""
    for i in range(count):
        write(folder / f"{i:02d}.wav", ramp(1.0, 0.02 * (i + 1)))
    return folder


def test_an_item_depends_on_seed_step_and_item_alone(tmp_path: Path) -> None:
    data = opened(many(tmp_path), augment=Augment())
    batch = data.train_batch(7, 3, range(8))
    again = opened(tmp_path, augment=Augment()).train_batch(7, 3, range(4, 8))
    assert torch.equal(batch.x[4:], again.x)
    assert batch.sources[4:] == again.sources
    for other in (data.train_batch(8, 3, range(8)), data.train_batch(7, 4, range(8))):
        assert not torch.equal(batch.x, other.x)
    assert len(set(batch.sources)) == 8


def test_a_crop_is_where_its_source_says(tmp_path: Path) -> None:
    batch = opened(many(tmp_path)).train_batch(0, 0, range(16))
    for x, source in zip(batch.x, batch.sources, strict=True):
        path, seconds = source.rsplit("@", 1)
        start = round(float(seconds) * RATE)
        expected, _ = soundfile.read(path, start=start, frames=800, dtype="float32")
        assert np.abs(x[0].numpy() - expected).max() < 1e-5


def test_training_and_validation_share_no_file(tmp_path: Path) -> None:
    data = opened(many(tmp_path), valid_crops=1_000)
    trained = {
        s.split("@")[0] for i in range(30) for s in data.train_batch(0, i, range(16)).sources
    }
    valid = {s.split("@")[0] for batch in data.valid_batches(7) for s in batch.sources}
    assert trained
    assert valid
    assert not trained & valid
    assert len(trained | valid) == 40


def test_four_short_files_train_and_their_last_tenth_validates(tmp_path: Path) -> None:
    for i in range(4):
        write(tmp_path / f"{i}.wav", ramp(0.5, 0.2 * (i + 1)))
    data = opened(tmp_path, segment_seconds=1.0)
    batch = data.train_batch(0, 0, range(32))
    assert batch.x.shape == (32, 1, RATE)
    assert batch.mask is not None
    assert (batch.mask.sum(1) == 0.45 * RATE).all()
    assert not batch.x[:, 0][~batch.mask].any()
    assert {s.split("/")[-1] for s in batch.sources} == {f"{i}.wav@0.000" for i in range(4)}
    [valid] = data.valid_batches(8)
    assert [s.split("/")[-1] for s in valid.sources] == [f"{i}.wav@0.450" for i in range(4)]
    assert valid.mask is not None
    assert (valid.mask.sum(1) == 0.05 * RATE).all()


def test_validation_is_the_same_every_time_and_in_every_batch_size(tmp_path: Path) -> None:
    data = opened(many(tmp_path), valid_crops=13)
    one, five = list(data.valid_batches(1)), list(data.valid_batches(5))
    assert [len(batch.x) for batch in five] == [5, 5, 3]
    assert torch.equal(torch.cat([b.x for b in one]), torch.cat([b.x for b in five]))
    assert [s for b in one for s in b.sources] == [s for b in five for s in b.sources]


def test_silent_crops_are_drawn_again_within_the_bound(tmp_path: Path) -> None:
    mostly_silent = np.zeros(10 * RATE, dtype=np.float32)
    mostly_silent[5 * RATE : 7 * RATE] = 0.5
    write(tmp_path / "x.wav", mostly_silent)
    often = opened(tmp_path, silent_draws=50).train_batch(0, 0, range(64)).x
    once = opened(tmp_path, silent_draws=1).train_batch(0, 0, range(64)).x
    assert (often.abs().amax((1, 2)) > 0).all()
    assert 4 < (once.abs().amax((1, 2)) > 0).sum() < 28  # 2 of 9 seconds


def test_only_silence_left_ends_within_the_bound(tmp_path: Path) -> None:
    click = np.zeros(10 * RATE, dtype=np.float32)
    click[-1] = 0.5  # in the last tenth, so training sees none of it
    write(tmp_path / "x.wav", click)
    assert not opened(tmp_path).train_batch(0, 0, range(4)).x.any()


def test_crops_have_the_models_rate_width_and_multiple(tmp_path: Path) -> None:
    many(tmp_path, 3)
    config = FolderData(path=str(tmp_path), segment_seconds=0.1, valid_seconds=0.2)
    data = open_dataset(config, sample_rate=24_000, channels=2, multiple_of=512)
    assert data.train_batch(0, 0, range(2)).x.shape == (2, 2, 2_560)
    assert next(iter(data.valid_batches(2))).x.shape == (2, 2, 5_120)


def test_the_fingerprint_follows_sounds_and_settings_and_not_the_place(tmp_path: Path) -> None:
    many(tmp_path / "a", 3)
    many(tmp_path / "b", 3)
    first = opened(tmp_path / "a").fingerprint
    assert opened(tmp_path / "b").fingerprint == first
    assert opened(tmp_path / "a", silent_draws=3).fingerprint != first
    assert opened(tmp_path / "a", channels=2).fingerprint != first
    write(tmp_path / "b" / "new.wav", ramp(1, 0.5))
    assert opened(tmp_path / "b").fingerprint != first


def test_a_file_that_shrank_since_the_scan_is_named(tmp_path: Path) -> None:
    many(tmp_path, 1)
    data = opened(tmp_path)
    write(tmp_path / "00.wav", ramp(0.01, 0.1))
    with pytest.raises(AudioError, match=r"00\.wav has samples 0 to 79"):
        data.train_batch(0, 0, range(1))


def test_the_line_for_people_counts(tmp_path: Path) -> None:
    many(tmp_path, 3)
    (tmp_path / "list.txt").write_text("three sounds")
    text = opened(tmp_path).describe()
    assert "3 of 4 files usable" in text
    assert "last tenth of each file is validation" in text
    assert "left out: 1 not audio" in text


def test_the_config_is_a_union_on_its_kind() -> None:
    config = parse(DataConfig, {"kind": "folder", "path": "music", "augment": {"swap": 0}})
    assert isinstance(config, FolderData)
    assert config.augment.swap == 0
    assert parse(DataConfig, config.model_dump()) == config
    with pytest.raises(ConfigError, match=r"data.*augment\.gain.*less than or equal to 1, got 2"):
        parse(DataConfig, {"kind": "folder", "path": "music", "augment": {"gain": 2}}, "data")


def test_nothing_usable_says_why(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no files"):
        opened(tmp_path)
