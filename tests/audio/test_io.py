"""Sound files in and out: what is read back is what was written, whole or an error."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from audiovae.audio.io import (
    BlockWriter,
    Sound,
    inspect,
    read,
    read_blocks,
    to_channels,
    write,
)
from audiovae.errors import AudioError, OutputError


def noise(channels: int, frames: int, seed: int = 0) -> Tensor:
    """Uniform noise in [-0.5, 0.5), [C, T]."""
    return torch.rand(channels, frames, generator=torch.Generator().manual_seed(seed)) - 0.5


@pytest.mark.parametrize("suffix", [".wav", ".rf64", ".flac", ".aiff", ".aif"])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
@pytest.mark.parametrize("channels", [1, 2])
def test_pcm_comes_back_within_half_a_step(
    tmp_path: Path, suffix: str, subtype: str, channels: int
) -> None:
    x = noise(channels, 1_001)
    assert write(tmp_path / f"x{suffix}", x, 44_100, subtype=subtype) == 0
    back = read(tmp_path / f"x{suffix}")
    step = 2.0 ** -(int(subtype[4:]) - 1)
    assert back.sample_rate == 44_100
    assert back.samples.shape == x.shape
    assert (back.samples - x).abs().max() <= step


def test_float_is_exact_above_full_scale(tmp_path: Path) -> None:
    x = 3 * noise(2, 500)
    assert write(tmp_path / "x.wav", x, 96_000, subtype="FLOAT") == 0
    assert torch.equal(read(tmp_path / "x.wav").samples, x)


def test_default_coding_is_24_bit(tmp_path: Path) -> None:
    write(tmp_path / "x.wav", noise(1, 10), 8_000)
    assert inspect(tmp_path / "x.wav") == (8_000, 1, 10, "WAV", "PCM_24")


@pytest.mark.parametrize(
    ("suffix", "rate"), [(".ogg", 44_100), (".mp3", 44_100), (".opus", 48_000)]
)
def test_lossy_keeps_length_rate_and_tone(tmp_path: Path, suffix: str, rate: int) -> None:
    tone = 0.4 * torch.sin(2 * torch.pi * 440 * torch.arange(rate) / rate).expand(2, -1)
    write(tmp_path / f"x{suffix}", tone, rate)
    back, back_rate = read(tmp_path / f"x{suffix}")
    assert (back_rate, back.shape) == (rate, tone.shape)
    error = (back - tone)[:, 4_096:-4_096].square().mean() / tone.square().mean()
    assert 10 * float(error.log10()) < -20


def test_clipping_is_done_and_counted(tmp_path: Path) -> None:
    x = torch.tensor([[0.0, 1.0, 1.5, -1.0, -7.0]])
    assert write(tmp_path / "x.wav", x, 44_100) == 2
    assert torch.allclose(read(tmp_path / "x.wav").samples, x.clamp(-1, 1), atol=2**-22)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
def test_a_part_equals_the_same_part_of_the_whole(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"x{suffix}", noise(2, 50_000), 44_100)
    whole = read(tmp_path / f"x{suffix}").samples
    part = read(tmp_path / f"x{suffix}", start=12_345, frames=6_789).samples
    assert torch.equal(part, whole[:, 12_345 : 12_345 + 6_789])


@pytest.mark.parametrize("frames", [1, 999, 1_000, 4_096])
def test_blocks_joined_are_the_whole(tmp_path: Path, frames: int) -> None:
    write(tmp_path / "x.flac", noise(2, 3_000), 44_100)
    blocks = list(read_blocks(tmp_path / "x.flac", frames))
    assert all(block.shape[1] == frames for block in blocks[:-1])
    assert torch.equal(torch.cat(blocks, dim=1), read(tmp_path / "x.flac").samples)


def test_written_in_blocks_is_the_same_file(tmp_path: Path) -> None:
    x = 1.2 * noise(2, 3_000)
    write(tmp_path / "whole.wav", x, 44_100)
    with BlockWriter(tmp_path / "blocks.wav", 44_100, 2) as writer:
        for block in x.split(700, dim=1):
            writer.write(block)
    assert writer.clipped == int((x.abs() > 1).sum())
    assert (tmp_path / "blocks.wav").read_bytes() == (tmp_path / "whole.wav").read_bytes()


def test_long_sounds_go_to_the_encoder_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libvorbis keeps the samples of one call on the stack: 4 million of them end the process."""
    sizes: list[int] = []
    real = soundfile.SoundFile.write

    def counted(file: soundfile.SoundFile, block: np.ndarray) -> None:
        sizes.append(len(block))
        real(file, block)

    monkeypatch.setattr(soundfile.SoundFile, "write", counted)
    write(tmp_path / "x.ogg", noise(1, 150_000), 8_000)
    assert max(sizes) <= 65_536
    assert sum(sizes) == inspect(tmp_path / "x.ogg").frames == 150_000


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), BlockWriter(tmp_path / "x.wav", 44_100, 1) as writer:
        writer.write(noise(1, 100))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_an_error_and_leaves_the_old_file(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")  # not on Windows
    write(tmp_path / "x.wav", noise(1, 10), 44_100)
    old = (tmp_path / "x.wav").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*x\.wav"):
            write(tmp_path / "x.wav", noise(2, 200_000), 44_100, force=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [p.name for p in tmp_path.iterdir()] == ["x.wav"]
    assert (tmp_path / "x.wav").read_bytes() == old


def test_names_need_not_be_utf8(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe \xf0\x9f\x8e\xbb\n.wav")
    write(path, noise(1, 10), 44_100)
    assert inspect(path).frames == 10
    with pytest.raises(AudioError, match=r"\\udcff\\udcfe 🎻\\n\.wav has"):
        read(path, start=11)


def test_existing_output_needs_force(tmp_path: Path) -> None:
    write(tmp_path / "x.wav", noise(1, 10), 44_100)
    with pytest.raises(OutputError, match=r"x\.wav exists; --force replaces it"):
        write(tmp_path / "x.wav", noise(1, 20), 44_100)
    write(tmp_path / "x.wav", noise(1, 20), 44_100, force=True)
    assert inspect(tmp_path / "x.wav").frames == 20


@pytest.mark.parametrize(
    ("name", "rate", "subtype", "message"),
    [
        ("x.m4a", 44_100, None, r"written as \.wav, .* not as '\.m4a'"),
        ("x", 44_100, None, r"written as \.wav, .* not as ''"),
        ("none/x.wav", 44_100, None, r"there is no folder .*none to write x\.wav in"),
        ("x.wav", 44_100, "PCM24", r"\.wav holds no coding named 'PCM24'; did you mean 'PCM_24'"),
        ("x.mp3", 96_000, None, r"cannot write .* as MP3/MPEG_LAYER_III at 96000 Hz"),
        ("x.opus", 44_100, None, r"cannot write .* as OGG/OPUS at 44100 Hz .*hold any rate"),
    ],
)
def test_what_cannot_be_written_says_why(
    tmp_path: Path, name: str, rate: int, subtype: str | None, message: str
) -> None:
    with pytest.raises(OutputError, match=message):
        write(tmp_path / name, noise(1, 100), rate, subtype=subtype)
    assert list(tmp_path.iterdir()) == []


def test_samples_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="not finite; nothing is written"):
        write(tmp_path / "x.wav", torch.tensor([[0.0, torch.nan]]), 44_100)
    with (
        pytest.raises(OutputError, match=r"has 2 channel\(s\), got samples of shape \(1, 5\)"),
        BlockWriter(tmp_path / "x.wav", 44_100, 2) as writer,
    ):
        writer.write(noise(1, 5))
    assert list(tmp_path.iterdir()) == []


def test_a_wav_that_would_pass_its_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audiovae.audio.io.WAV_LIMIT", 3_000)
    with pytest.raises(
        OutputError, match=r"passes 4 GiB, the limit of a WAV; use \.flac or \.rf64"
    ):
        write(tmp_path / "x.wav", noise(2, 501), 44_100)
    write(tmp_path / "x.wav", noise(2, 500), 44_100)
    for suffix in (".flac", ".rf64"):
        write(tmp_path / f"x{suffix}", noise(2, 501), 44_100)


@pytest.mark.parametrize(("start", "frames"), [(-1, 5), (0, 0), (8, 3), (10, None), (0, 11)])
def test_a_part_that_is_not_there_is_refused(
    tmp_path: Path, start: int, frames: int | None
) -> None:
    write(tmp_path / "x.wav", noise(1, 10), 44_100)
    with pytest.raises(AudioError, match=rf"has samples 0 to 9, .* from sample {start} on"):
        read(tmp_path / "x.wav", start=start, frames=frames)


def test_channels_one_way_and_the_other() -> None:
    mono, stereo = noise(1, 7), noise(2, 7)
    assert torch.equal(to_channels(mono, 2), torch.cat([mono, mono]))
    assert torch.equal(to_channels(to_channels(mono, 2), 1), mono)
    assert torch.allclose(to_channels(stereo, 1)[0], (stereo[0] + stereo[1]) / 2)
    assert to_channels(stereo, 2) is stereo
    with pytest.raises(AudioError, match="2 channels cannot be made 6"):
        to_channels(stereo, 6)


def test_per_channel_reads_any_number_of_channels(tmp_path: Path) -> None:
    x = noise(6, 100)
    write(tmp_path / "x.wav", x, 48_000, subtype="FLOAT")
    assert torch.equal(read(tmp_path / "x.wav", per_channel=True).samples, x)
    assert torch.equal(torch.cat(list(read_blocks(tmp_path / "x.wav", 30, per_channel=True)), 1), x)


def test_what_is_read_equals_soundfile(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", np.linspace(-1, 1, 99), 22_050, subtype="PCM_U8")
    expected, rate = soundfile.read(tmp_path / "x.wav", dtype="float32")
    got = read(tmp_path / "x.wav")
    assert isinstance(got, Sound)
    assert got.sample_rate == rate
    assert np.array_equal(got.samples[0].numpy(), expected)
