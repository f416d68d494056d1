"""A crop is the same piece of the file, at any rate, and the timeline chooses by duration."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest
import soundfile
import torch

from audiovae.audio.io import read, write
from audiovae.audio.pool import SoundPool
from audiovae.audio.resample import resample
from audiovae.data import FolderData, crops, open_dataset
from audiovae.data.crops import Position, Section, Timeline, cut


def section(path: Path, rate: int, start: int, stop: int) -> Section:
    """A stretch of a file."""
    return Section(str(path), "0" * 64, rate, start, stop)


def noise_file(path: Path, rate: int, seconds: float, channels: int = 2) -> torch.Tensor:
    """Write noise and return it as it reads, [C, T]."""
    generator = torch.Generator().manual_seed(3)
    write(path, torch.rand(channels, round(rate * seconds), generator=generator) - 0.5, rate)
    return read(path).samples


@pytest.mark.parametrize(
    ("from_rate", "to_rate"),
    [(44_100, 44_100), (44_100, 24_000), (48_000, 44_100), (8_000, 44_100), (192_000, 16_000)],
)
def test_a_crop_equals_the_piece_of_the_whole_resampled(
    tmp_path: Path, from_rate: int, to_rate: int
) -> None:
    x = noise_file(tmp_path / "x.wav", from_rate, 1.0)
    whole = resample(x, from_rate, to_rate)
    place = section(tmp_path / "x.wav", from_rate, 0, x.shape[1])
    for tenth in (0, 3, 7):  # at tenths of a second both rates have a sample
        crop, sound = cut(
            Position(place, tenth * from_rate // 10), to_rate // 5, to_rate, 2, SoundPool()
        )
        start = tenth * to_rate // 10
        assert sound == to_rate // 5
        assert (crop - whole[:, start : start + to_rate // 5]).abs().max() < 1e-5


def test_the_end_is_padded_and_said(tmp_path: Path) -> None:
    x = noise_file(tmp_path / "x.flac", 8_000, 0.1)
    crop, sound = cut(
        Position(section(tmp_path / "x.flac", 8_000, 0, 800), 0), 1_000, 8_000, 2, SoundPool()
    )
    assert sound == 800
    assert torch.equal(crop[:, :800], x)
    assert not crop[:, 800:].any()


def test_nothing_outside_the_section_is_heard(tmp_path: Path) -> None:
    x = torch.zeros(1, 48_000)
    x[:, 24_000:] = 0.9
    write(tmp_path / "x.wav", x, 48_000)
    place = section(tmp_path / "x.wav", 48_000, 0, 24_000)
    crop, sound = cut(Position(place, 12_000), 11_025, 44_100, 1, SoundPool())
    assert sound == 11_025
    assert not crop.any()


@pytest.mark.parametrize(("file_channels", "channels"), [(1, 2), (2, 1)])
def test_channels_are_the_wanted_ones(tmp_path: Path, file_channels: int, channels: int) -> None:
    x = noise_file(tmp_path / "x.wav", 8_000, 0.1, file_channels)
    crop, _ = cut(
        Position(section(tmp_path / "x.wav", 8_000, 0, 800), 0), 800, 8_000, channels, SoundPool()
    )
    assert torch.allclose(crop, x.mean(0, keepdim=True).expand(channels, -1))


def test_mp3s_are_decoded_before_the_first_crop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that decodes would be timed as a step, and `--minutes` come out as far too few steps."""
    monkeypatch.setenv("AUDIOVAE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "music").mkdir()
    for name, rate in (("a", 8_000), ("b", 11_025), ("c", 16_000)):
        soundfile.write(
            tmp_path / "music" / f"{name}.mp3", 0.5 * np.sin(np.arange(30_000) / 9), rate
        )
    data = open_dataset(FolderData(path=str(tmp_path / "music")), sample_rate=8_000, channels=1)
    assert len(list((tmp_path / "cache" / "decoded").glob("*.rf64"))) == 3
    monkeypatch.setattr(crops, "read_blocks", None)  # none is decoded any more
    monkeypatch.setattr(crops, "progress", None)  # nor a bar begun, beside that of a training
    data.train_batch(0, 0, range(8))


def test_a_copy_that_is_gone_is_made_again_in_the_middle_of_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIOVAE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "music").mkdir()
    soundfile.write(tmp_path / "music" / "a.mp3", 0.5 * np.sin(np.arange(30_000) / 9), 8_000)
    data = open_dataset(FolderData(path=str(tmp_path / "music")), sample_rate=8_000, channels=1)
    before = data.train_batch(0, 0, range(2)).x
    data.files.close()
    shutil.rmtree(tmp_path / "cache" / "decoded")
    monkeypatch.setattr(crops, "progress", None)
    assert torch.equal(data.train_batch(0, 0, range(2)).x, before)


def test_an_mp3_is_decoded_once_and_then_read_from_the_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIOVAE_CACHE", str(tmp_path / "cache"))
    tone = 0.9 * np.sin(np.arange(44_100) / 9)[:, None].repeat(2, 1)
    soundfile.write(tmp_path / "x.mp3", tone, 44_100)
    whole = read(tmp_path / "x.mp3").samples
    place = section(tmp_path / "x.mp3", 44_100, 0, whole.shape[1])
    for start in (0, 12_345):
        crop, _ = cut(Position(place, start), 5_000, 44_100, 2, SoundPool())
        assert torch.equal(crop, whole[:, start : start + 5_000])
    (tmp_path / "x.mp3").unlink()
    crop, _ = cut(Position(place, 77), 5_000, 44_100, 2, SoundPool())
    assert torch.equal(crop, whole[:, 77:5_077])


def timeline(*seconds: float) -> Timeline:
    """Sections of these lengths, named by their number."""
    return Timeline(
        [section(Path(str(i)), 100, 50, 50 + int(s * 100)) for i, s in enumerate(seconds)]
    )


def test_files_are_drawn_in_proportion_to_their_duration() -> None:
    line, rng = timeline(1, 3, 6), Random(0)
    draws = [line.at(rng.random(), rng.random(), 0.5) for _ in range(4_000)]
    shares = Counter(at.section.path for at in draws)
    assert [shares[str(i)] / 4_000 for i in range(3)] == pytest.approx([0.1, 0.3, 0.6], abs=0.03)
    for at in draws:
        assert at.section.start <= at.start <= at.section.stop - 50
    starts = [at.start - 50 for at in draws if at.section.path == "2"]
    assert min(starts) < 20
    assert max(starts) > 530


def test_a_short_section_starts_at_its_start() -> None:
    assert timeline(0.2).at(0.99, 0.99, 1.0).start == 50
    assert timeline(1, 1).at(0.999, 0.999, 1.0) == Position(timeline(1, 1).sections[1], 50)


def test_spread_covers_every_section_without_overlap_and_within_the_count() -> None:
    line = timeline(0.3, 2.0, 5.0)
    every = line.spread(100, 1.0)
    assert [(at.section.path, at.start) for at in every] == [
        *[("0", 50)], *[("1", 50 + 100 * i) for i in range(2)],
        *[("2", 50 + 100 * i) for i in range(5)],
    ]  # fmt: skip
    few = line.spread(4, 1.0)
    assert len(few) == 4
    assert set(few) < set(every)
    assert {at.section.path for at in few} >= {"1", "2"}


def test_the_last_crop_of_a_section_ends_with_it() -> None:
    assert [at.start for at in timeline(2.5).spread(9, 1.0)] == [50, 150, 200]
