"""sample and interpolate: the same seed, the right ends, files or folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import torch

import audiovae
from audiovae.audio.io import Sound, inspect, read, write
from audiovae.errors import AudioVaeError, ConfigError, LatentError, OutputError
from audiovae.models import build, resolve
from audiovae.nn.noise import generators, standard_normal

SHORT: dict[str, Any] = {"seconds": 0.05, "prior": "standard"}


def tone(pitch: float, samples: int, rate: int = 44_100) -> Sound:
    """A sine in stereo."""
    t = torch.arange(samples) / rate
    return Sound(0.3 * torch.sin(2 * torch.pi * pitch * t).expand(2, -1), rate)


def test_a_sample_is_the_decoded_prior(model_folder: Path) -> None:
    model = audiovae.load(model_folder)
    (sound,) = audiovae.sample(model, seed=3, **SHORT)
    frames = -(-2_205 // model.hop_length)
    z = standard_normal(torch.zeros(1, model.latent_dim, frames), generators(3, items=1))
    with torch.no_grad():
        expected = model.decode(z, 2_205)[0]
    bound = 1e-5 * float(expected.abs().max())
    torch.testing.assert_close(sound.samples, expected, rtol=0, atol=bound)
    assert sound.sample_rate == model.sample_rate


def test_the_first_of_many_samples_is_the_only_one(model_folder: Path) -> None:
    (one,) = audiovae.sample(model_folder, seed=5, **SHORT)
    first, second, third = audiovae.sample(model_folder, seed=5, n=3, **SHORT)
    assert torch.equal(one.samples, first.samples)
    assert not torch.equal(second.samples, third.samples)


def test_without_temperature_a_trained_model_says_its_mean(run_folder: Path) -> None:
    model = audiovae.load(run_folder)
    cold = audiovae.sample(model, seconds=0.05, temperature=0)[0].samples
    frames = -(-2_205 // model.hop_length)
    mean = model.statistics.mean[None, :, None].expand(1, -1, frames)  # type: ignore[union-attr]
    with torch.no_grad():
        expected = model.decode(mean, 2_205)[0]
    torch.testing.assert_close(cold, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("prior", ["aggregate", "standard"])
def test_codes_have_no_gaussian_prior(prior: Literal["aggregate", "standard"]) -> None:
    codec = build(resolve("dac_16k", {"size": 0, "n_codebooks": 2}))
    with pytest.raises(LatentError, match="codes, which have no Gaussian prior"):
        audiovae.sample(codec, prior=prior)


def test_a_model_without_statistics_has_no_aggregate_prior(model_folder: Path) -> None:
    with pytest.raises(LatentError, match=r"no statistics .* --prior standard needs none"):
        audiovae.sample(model_folder, seconds=0.05)


@pytest.mark.parametrize(
    "wrong", [{"n": 0}, {"seconds": 0.0}, {"seconds": 1e9}, {"temperature": -1.0}]
)
def test_impossible_samples_are_refused(model_folder: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"n is at least 1, seconds above 0 .*; got"):
        audiovae.sample(model_folder, **SHORT | wrong)


def test_a_walk_begins_and_ends_with_the_reconstructions(model_folder: Path) -> None:
    a, b = tone(220, 3_000), tone(330, 5_000)
    for spherical in (False, True):
        steps = audiovae.interpolate(model_folder, a, b, steps=5, spherical=spherical)
        assert [s.samples.shape[1] for s in steps] == [3_000, 3_500, 4_000, 4_500, 5_000]
        for step, end in ((steps[0], a), (steps[-1], b)):
            expected = audiovae.reconstruct(model_folder, end).samples
            bound = 1e-5 * float(expected.abs().max())
            torch.testing.assert_close(step.samples, expected, rtol=0, atol=bound)


def test_a_walk_between_one_sound_and_itself_stands_still(model_folder: Path) -> None:
    first, *others = audiovae.interpolate(model_folder, tone(220, 2_000), tone(220, 2_000), steps=3)
    for other in others:
        torch.testing.assert_close(other.samples, first.samples, rtol=0, atol=1e-5)


def test_a_walk_of_one_step_is_refused(model_folder: Path) -> None:
    with pytest.raises(ConfigError, match="steps must be at least 2, the two ends, got 1"):
        audiovae.interpolate(model_folder, tone(220, 100), tone(330, 100), steps=1)


def test_a_folder_gets_a_file_each_and_a_file_gets_them_in_a_row(
    model_folder: Path, tmp_path: Path
) -> None:
    sounds = audiovae.sample(model_folder, n=10, out=tmp_path / "many", subtype="FLOAT", **SHORT)
    names = sorted(p.name for p in (tmp_path / "many").iterdir())
    assert names == [f"{number:02}.wav" for number in range(1, 11)]
    assert torch.equal(read(tmp_path / "many" / "07.wav").samples, sounds[6].samples)

    write(tmp_path / "a.wav", tone(220, 700).samples, 44_100)
    write(tmp_path / "b.wav", tone(330, 700).samples, 44_100)
    audiovae.interpolate(
        model_folder, tmp_path / "a.wav", tmp_path / "b.wav", steps=4, out=tmp_path / "walk.flac"
    )
    assert inspect(tmp_path / "walk.flac")[:3] == (44_100, 2, 2_800)


@pytest.mark.parametrize(
    ("name", "message"), [("there", "exists; --force"), ("a.txt", "neither a folder nor a sound")]
)
def test_places_that_cannot_be_written_are_refused_first(
    tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(AudioVaeError, match=message):
        audiovae.sample(tmp_path / "no-model", out=tmp_path / name, **SHORT)
    with pytest.raises((OutputError, ConfigError), match=message):
        audiovae.interpolate(tmp_path / "no-model", "a.wav", "b.wav", out=tmp_path / name)
