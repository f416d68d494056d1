"""Parts of files that stay open are what a fresh look at the file gives."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import soundfile
import torch

from audiovae.audio.io import read, write
from audiovae.audio.pool import SoundPool
from audiovae.errors import AudioError

RATE, LENGTH = 48_000, 60_000


@pytest.fixture(params=["wav", "flac", "ogg", "opus", "aiff"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    noise = 0.2 * torch.randn(2, LENGTH, generator=torch.Generator().manual_seed(0))
    write(tmp_path / f"x.{request.param}", noise, RATE)
    return tmp_path / f"x.{request.param}"


def parts(count: int, seed: int = 0) -> list[tuple[int, int]]:
    rng = random.Random(seed)
    lengths = [rng.randint(1, 9_000) for _ in range(count)]
    return [(rng.randint(0, LENGTH - length), length) for length in lengths]


def test_a_part_is_the_same_whatever_was_read_before_it(path: Path) -> None:
    pool = SoundPool()
    for start, length in [(0, LENGTH), (0, 10), *parts(40), (LENGTH - 1, 1), (0, 10)]:
        fresh = read(path, start=start, frames=length).samples if start else None
        fresh = read(path).samples[:, :length] if fresh is None else fresh
        assert torch.equal(pool.read(path, start, length), fresh)


def test_threads_share_a_pool(path: Path) -> None:
    pool, wanted = SoundPool(), parts(60, seed=1)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda part: pool.read(path, *part), wanted))
    alone = SoundPool()
    assert all(
        torch.equal(x, alone.read(path, *part)) for x, part in zip(found, wanted, strict=True)
    )


def test_no_more_files_stay_open_than_allowed(tmp_path: Path) -> None:
    for i in range(5):
        write(tmp_path / f"{i}.wav", torch.full((1, 100), 0.1 * i), RATE, subtype="FLOAT")
    pool = SoundPool(limit=2)
    for i in (0, 1, 2, 3, 4, 0, 0, 3):
        assert torch.equal(pool.read(tmp_path / f"{i}.wav", 3, 5), torch.full((1, 5), 0.1 * i))
    opened = (
        [Path(p).resolve() for p in Path("/proc/self/fd").iterdir()]
        if Path("/proc").exists()
        else []
    )
    assert len([p for p in opened if p.parent == tmp_path]) <= 2
    pool.close()
    assert torch.equal(pool.read(tmp_path / "2.wav", 0, 5), torch.full((1, 5), 0.2))


def test_what_is_no_whole_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "x.wav", torch.zeros(1, 1_000), RATE)
    (tmp_path / "x.wav").write_bytes((tmp_path / "x.wav").read_bytes()[:-100])
    with pytest.raises(AudioError, match="is truncated"):
        SoundPool().read(tmp_path / "x.wav", 0, 10)
    soundfile.write(tmp_path / "six.wav", torch.zeros(100, 6).numpy(), RATE)
    with pytest.raises(AudioError, match="has 6 channels; one or two"):
        SoundPool().read(tmp_path / "six.wav", 0, 10)
