"""encode, decode, reconstruct: arrays and files, every rate and width, exact lengths, refusals."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

import audiovae
from audiovae.api import opening
from audiovae.audio.io import Sound, inspect, read, write
from audiovae.audio.resample import resample
from audiovae.errors import AudioError, ConfigError, LatentError, OutputError
from audiovae.models import build, resolve


def noise(channels: int, samples: int, seed: int = 0, level: float = 0.1) -> torch.Tensor:
    """White noise [C, T] below full scale."""
    return level * torch.randn(channels, samples, generator=torch.Generator().manual_seed(seed))


def test_encode_is_the_models_mean_and_decode_its_decoder(model_folder: Path) -> None:
    model = audiovae.load(model_folder)
    x = noise(2, 5_000)
    latent = audiovae.encode(model, x, sample_rate=44_100)
    with torch.no_grad():
        z = model.encode(x[None]).z
        x_hat = model.decode(z, 5_000)[0]
    torch.testing.assert_close(latent.z, z[0], rtol=0, atol=1e-5 * float(z.abs().max()))
    decoded = audiovae.decode(model, latent)
    assert decoded.sample_rate == 44_100
    bound = 1e-5 * float(x_hat.abs().max())
    torch.testing.assert_close(decoded.samples, x_hat, rtol=0, atol=bound)


@pytest.mark.parametrize("samples", [1, 63, 64, 65, 3_001])
@pytest.mark.parametrize("rate", [8_000, 44_100, 192_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_reconstruct_returns_rate_channels_and_length(
    model_folder: Path, samples: int, rate: int, channels: int
) -> None:
    sound = audiovae.reconstruct(model_folder, noise(channels, samples), sample_rate=rate)
    assert sound.sample_rate == rate
    assert sound.samples.shape == (channels, samples)
    assert sound.samples.isfinite().all()


@pytest.mark.parametrize(("rate", "channels"), [(48_000, 1), (16_000, 1), (22_050, 1)])
def test_decode_after_encode_is_reconstruct(mono_folder: Path, rate: int, channels: int) -> None:
    sound = Sound(noise(channels, 4_321), rate)
    model = audiovae.load(mono_folder)
    whole = audiovae.reconstruct(model, sound)
    twice = audiovae.decode(model, audiovae.encode(model, sound))
    assert twice.sample_rate == rate
    bound = 1e-5 * float(whole.samples.abs().max())
    torch.testing.assert_close(twice.samples, whole.samples, rtol=0, atol=bound)


def test_other_rates_and_widths_are_the_models_own_after_adapting(mono_folder: Path) -> None:
    x = noise(1, 6_000)
    direct = resample(x, 48_000, 16_000)
    model = audiovae.load(mono_folder)
    adapted = audiovae.encode(model, x, sample_rate=48_000).z
    expected = audiovae.encode(model, direct, sample_rate=16_000).z
    bound = 1e-4 * float(expected.abs().max())  # the resampler in blocks against the whole
    torch.testing.assert_close(adapted, expected, rtol=0, atol=bound)


def test_mono_goes_through_a_stereo_model_as_two_equal_channels(model_folder: Path) -> None:
    x = noise(1, 6_000)
    latent = audiovae.encode(model_folder, x, sample_rate=44_100)
    twice = audiovae.encode(model_folder, x.expand(2, -1), sample_rate=44_100)
    assert torch.equal(latent.z, twice.z)


def test_stereo_into_a_mono_model_is_refused_or_goes_channel_by_channel(
    mono_folder: Path, tmp_path: Path
) -> None:
    """Mixed down in silence, both channels would come back alike."""
    x = noise(2, 6_000)
    write(tmp_path / "a.wav", x, 16_000, subtype="FLOAT")
    for verb in (audiovae.encode, audiovae.reconstruct):
        with pytest.raises(AudioError, match=r"has 2 channels, the model 1: --per-channel"):
            verb(mono_folder, tmp_path / "a.wav", tmp_path / "b.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]
    sound = audiovae.reconstruct(mono_folder, tmp_path / "a.wav", per_channel=True).samples
    for channel in (0, 1):
        alone = x[channel : channel + 1]
        expected = audiovae.reconstruct(mono_folder, alone, sample_rate=16_000).samples[0]
        assert (sound[channel] - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_small_blocks_equal_one_piece(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.wav", noise(2, 30_000), 32_000)
    whole = audiovae.reconstruct(model_folder, tmp_path / "a.wav").samples
    monkeypatch.setattr(opening, "BLOCK", 997)
    pieces = audiovae.reconstruct(model_folder, tmp_path / "a.wav").samples
    torch.testing.assert_close(pieces, whole, rtol=0, atol=1e-5 * float(whole.abs().max()))


def test_files_hold_what_arrays_do(model_folder: Path, tmp_path: Path) -> None:
    samples = noise(1, 3_000)
    write(tmp_path / "a.wav", samples, 44_100, subtype="FLOAT")
    latent = audiovae.encode(model_folder, tmp_path / "a.wav", tmp_path / "a.safetensors")
    array = audiovae.encode(model_folder, samples.numpy()[0], sample_rate=44_100)
    assert torch.equal(latent.z, array.z)
    path = audiovae.decode(
        model_folder, tmp_path / "a.safetensors", tmp_path / "b.wav", subtype="FLOAT"
    )
    assert path == tmp_path / "b.wav"
    assert torch.equal(read(path).samples, audiovae.decode(model_folder, array).samples)


def test_written_formats_and_default_coding(model_folder: Path, tmp_path: Path) -> None:
    quiet = noise(2, 2_000, level=1e-4)
    for suffix, subtype in {".wav": "PCM_24", ".flac": "PCM_24", ".ogg": "VORBIS"}.items():
        out = audiovae.reconstruct(model_folder, quiet, tmp_path / f"a{suffix}", sample_rate=44_100)
        assert inspect(out)[:3] == (44_100, 2, 2_000)
        assert inspect(out).subtype == subtype


def test_what_clips_is_counted(
    model_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = audiovae.load(model_folder)
    with torch.no_grad():
        model.speak.weight.mul_(100)  # a decoder that is far too loud
    with caplog.at_level(logging.WARNING, "audiovae"):
        audiovae.reconstruct(model, noise(2, 2_000), tmp_path / "a.wav", sample_rate=44_100)
    loud = audiovae.reconstruct(model, noise(2, 2_000), sample_rate=44_100).samples.abs() > 1
    assert f"a.wav: {int(loud.sum())} samples above full scale were clipped" in caplog.text


def test_each_channel_alone_equals_it_as_mono(model_folder: Path) -> None:
    model = audiovae.load(model_folder)
    x = noise(3, 2_000)
    together = audiovae.reconstruct(model, x, sample_rate=44_100, per_channel=True).samples
    latent = audiovae.encode(model, x, sample_rate=44_100, per_channel=True)
    assert torch.equal(audiovae.decode(model, latent).samples, together)
    for channel in range(3):
        alone = audiovae.reconstruct(model, x[channel], sample_rate=44_100).samples
        torch.testing.assert_close(together[channel : channel + 1], alone, rtol=0, atol=1e-6)


def test_a_folder_keeps_its_shape_and_lossy_files_become_wav(
    model_folder: Path, tmp_path: Path
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    (source / "deep").mkdir(parents=True)
    write(source / "a.flac", noise(1, 900), 22_050)
    write(source / "deep" / "b.ogg", noise(2, 1_200), 44_100)
    (source / "notes.txt").write_text("not sound")
    assert audiovae.reconstruct(model_folder, source, out) == out
    written = {p.relative_to(out).as_posix(): inspect(p) for p in out.rglob("*.*")}
    assert written.keys() == {"a.flac", "deep/b.ogg.wav"}
    assert written["a.flac"][:3] == (22_050, 1, 900)
    assert written["deep/b.ogg.wav"][:3] == (44_100, 2, 1_200)


def test_a_folder_names_what_it_could_not_use_and_does_the_rest(
    model_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "good.wav", noise(1, 900), 22_050)
    (tmp_path / "in" / "bad.wav").write_bytes(b"")
    with pytest.raises(AudioError, match=r"1 of 2 files could not be used: .*bad\.wav is empty"):
        audiovae.reconstruct(model_folder, tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out" / "good.wav").exists()


@pytest.mark.parametrize(
    ("folder", "out", "message"),
    [
        ("empty", "out", "there is no sound in .*empty"),
        ("full", None, "full is a folder; name the folder to write to"),
        ("full", "full/out", "lies in .*full, which is read; write beside it"),
        ("full", "empty", "empty exists; --force replaces it"),
    ],
)
def test_folders_that_cannot_be(
    model_folder: Path, tmp_path: Path, folder: str, out: str | None, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    write(tmp_path / "full" / "a.wav", noise(1, 100), 22_050)
    with pytest.raises((AudioError, OutputError), match=message):
        audiovae.reconstruct(model_folder, tmp_path / folder, tmp_path / out if out else None)


def test_an_output_that_exists_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"mine")
    (tmp_path / "a.safetensors").write_bytes(b"mine")
    nowhere = tmp_path / "no-model"
    for refused in (
        lambda: audiovae.reconstruct(nowhere, "in.wav", tmp_path / "a.wav"),
        lambda: audiovae.decode(nowhere, "in.safetensors", tmp_path / "a.wav"),
        lambda: audiovae.encode(nowhere, "in.wav", tmp_path / "a.safetensors"),
    ):
        with pytest.raises(OutputError, match="exists; --force replaces it"):
            refused()
    assert (tmp_path / "a.wav").read_bytes() == b"mine"


def test_force_replaces_and_a_failure_leaves_nothing(model_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.wav"
    out.write_bytes(b"mine")
    audiovae.reconstruct(model_folder, noise(2, 500), out, sample_rate=44_100, force=True)
    assert inspect(out).frames == 500
    kept = out.read_bytes()
    broken = noise(2, 200_000)
    soundfile.write(tmp_path / "broken.wav", broken.T.numpy(), 44_100, "FLOAT")
    data = bytearray((tmp_path / "broken.wav").read_bytes())
    data[-8:-4] = np.array([np.nan], np.float32).tobytes()  # found in the last block only
    (tmp_path / "broken.wav").write_bytes(data)
    with pytest.raises(AudioError, match="holds nan"):
        audiovae.reconstruct(model_folder, tmp_path / "broken.wav", out, force=True)
    assert out.read_bytes() == kept
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.wav", "broken.wav"]


def test_a_latent_of_another_model_is_refused_by_both_names(
    model_folder: Path, other_folder: Path
) -> None:
    latent = audiovae.encode(model_folder, noise(2, 500), sample_rate=44_100)
    ours, theirs = (audiovae.load(f).model_hash[:12] for f in (model_folder, other_folder))
    with pytest.raises(LatentError, match=f"made by the model {ours}, this one is {theirs}"):
        audiovae.decode(other_folder, latent)


def test_a_model_that_was_never_saved_codes_too(model_folder: Path) -> None:
    fresh = build(resolve("spec_frame", {"size": 0}))
    latent = audiovae.encode(fresh, noise(2, 500), sample_rate=44_100)
    assert latent.model_hash == ""
    assert audiovae.decode(fresh, latent).samples.shape == (2, 500)
    with pytest.raises(LatentError, match="made by the model that was never saved, this one is"):
        audiovae.decode(model_folder, latent)


@pytest.mark.parametrize(
    ("sound", "rate", "message"),
    [
        (np.zeros(8), None, "does not say how fast it goes: give sample_rate=, in Hz"),
        (np.zeros(8, np.int16), 8_000, r"floats in \[-1, 1\], got torch.int16"),
        (np.zeros((1, 2, 8)), 8_000, r"\[channels, samples\] or \[samples\], got \(1, 2, 8\)"),
        (np.zeros(0), 8_000, r"got \(0,\)"),
        (np.full(8, np.inf), 8_000, "NaN or Inf"),
        (np.zeros((3, 8)), 8_000, "3 channels; .* --per-channel"),
        ([0.0, 0.1], 8_000, "a path, an array or a Sound, got list"),
        (Sound(torch.full((1, 8), math.nan), 8_000), None, "NaN or Inf"),
        (Sound(torch.zeros(8, dtype=torch.int16), 8_000), None, "got torch.int16"),
        (np.zeros(8), 0, "sample_rate is in Hz, at least 1, got 0"),
    ],
)
def test_arrays_that_are_no_sound(
    model_folder: Path, sound: object, rate: int | None, message: str
) -> None:
    with pytest.raises(AudioError, match=message):
        audiovae.encode(model_folder, sound, sample_rate=rate)  # type: ignore[arg-type]


def test_a_model_in_training_codes_as_in_use_and_trains_on(run_folder: Path) -> None:
    """Batch statistics and codebooks must not learn from what is listened to."""
    for name, options in (("spec_conv", {"size": 0}), ("dac_16k", {"size": 0, "n_codebooks": 2})):
        model = build(resolve(name, options)).train()
        frozen = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)][:1]
        for module in frozen:
            module.eval()  # as some fine-tune
        before = {name: t.clone() for name, t in model.state_dict().items()}
        modes = [module.training for module in model.modules()]
        x = noise(model.channels, 5_000)
        sound = audiovae.reconstruct(model, x, sample_rate=model.sample_rate)
        assert [module.training for module in model.modules()] == modes
        model.commit(0)
        assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
        again = audiovae.reconstruct(model.eval(), x, sample_rate=model.sample_rate)
        assert torch.equal(sound.samples, again.samples)


def test_bf16_is_close_and_whole_in_its_chunks(model_folder: Path) -> None:
    """Three digits, and float32 outside."""
    x = noise(2, 200_000, level=0.3)
    exact = audiovae.reconstruct(model_folder, x, sample_rate=44_100).samples
    rough = audiovae.reconstruct(model_folder, x, sample_rate=44_100, precision="bf16").samples
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().max() < 0.05 * exact.abs().max()
    latent = audiovae.encode(model_folder, x, sample_rate=44_100, precision="bf16")
    assert latent.z is not None and latent.z.dtype == torch.float32
    model = audiovae.load(model_folder)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        whole = model(x[None]).x_hat[0].float()
    assert (rough - whole).abs().max() < 0.02 * whole.abs().max()


def test_threads_are_set_back_and_impossible_ones_refused(model_folder: Path) -> None:
    before = torch.get_num_threads()
    audiovae.encode(model_folder, noise(2, 500), sample_rate=44_100, threads=2)
    assert torch.get_num_threads() == before
    with pytest.raises(ConfigError, match="threads must be at least 1, got 0"):
        audiovae.encode(model_folder, noise(2, 500), sample_rate=44_100, threads=0)


def test_a_device_that_is_not_there_is_refused(model_folder: Path) -> None:
    missing = "mps" if torch.cuda.is_available() else "cuda"
    with pytest.raises(ConfigError, match=f"{missing} .*here|device {missing} is not there"):
        audiovae.encode(model_folder, noise(2, 500), sample_rate=44_100, device=missing)  # type: ignore[arg-type]


def test_results_can_be_trained_through(model_folder: Path) -> None:
    latent = audiovae.encode(model_folder, noise(2, 500), sample_rate=44_100)
    weight = torch.ones(1, requires_grad=True)
    (latent.z * weight).sum().backward()  # an inference tensor would raise here
    assert weight.grad is not None
