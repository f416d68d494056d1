"""info and diagnose: figures against their definitions."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import audiovae
from audiovae.api.evaluation import CodesDiagnosis, Diagnosis
from audiovae.checkpoint import save_model
from audiovae.data import SynthData, open_dataset
from audiovae.errors import CheckpointError, ConfigError
from audiovae.models import build, resolve
from audiovae.nn.densities import kl_standard_normal


def test_info_counts_what_the_model_has(model_folder: Path) -> None:
    model = audiovae.load(model_folder)
    info = audiovae.info(model_folder)
    assert info == audiovae.info(model)
    assert info.parameters == sum(p.numel() for p in model.parameters())
    sound, latent = 44_100 * 2, model.latent_dim * model.frame_rate  # numbers a second
    assert info.compression_in_elements == pytest.approx(sound / latent)
    assert info.compression_in_time == pytest.approx(44_100 / model.frame_rate)
    assert info.model_hash == model.model_hash
    assert (info.receptive_field, info.delay) == (model.receptive_field, model.delay)


def test_info_of_a_preset_is_that_of_its_model() -> None:
    table = {"preset": "spec_frame", "size": 0, "channels": 1}
    built = audiovae.info(build(resolve("spec_frame", {"size": 0, "channels": 1})))
    assert audiovae.info(table) == audiovae.info(resolve("spec_frame", {"size": 0, "channels": 1}))
    assert audiovae.info(table) == built
    assert audiovae.info("oobleck").parameters > 100e6  # and it took no such memory


def test_info_is_told_in_words(model_folder: Path) -> None:
    info = audiovae.info(model_folder)
    text = info.describe()
    assert f"compression in elements  {info.compression_in_elements:.1f} : 1" in text
    assert "2 channel(s) at 44,100 Hz" in text


@pytest.mark.parametrize(
    ("preset", "kbps"),  # as published: papers and model cards
    [
        ("dac_44k", 7.75),
        ("dac_24k", 24.0),
        ("encodec_24k", 24.0),
        ("encodec_48k", 24.0),
        ("mimi", 4.4),
    ],
)
def test_info_of_a_codec_gives_its_published_rate(preset: str, kbps: float) -> None:
    info = audiovae.info(preset)
    assert info.kbps == pytest.approx(kbps, rel=2e-3)
    assert f"{info.kbps:.2f} kbit/s" in info.describe()


@pytest.mark.parametrize("preset", ["encodec_24k", "encodec_48k", "jukebox", "hierarchy"])
def test_the_rate_of_info_is_that_of_the_codes(preset: str) -> None:
    """Of a long sound, where the last frame and the segments' overlap weigh little."""
    model = build(resolve(preset, {"size": 0})).eval()
    sound = torch.zeros(model.channels, model.sample_rate)
    latent = audiovae.encode(model, sound, sample_rate=model.sample_rate)
    sizes = latent.codebook_sizes[latent.side_levels :]
    codes = latent._replace(codes=latent.codes[latent.side_levels :], codebook_sizes=sizes)
    assert codes.bits_per_second == pytest.approx(1000 * (audiovae.info(model).kbps or 0), rel=0.05)


def test_info_of_nothing_says_what_there_is() -> None:
    with pytest.raises(CheckpointError, match="did you mean 'oobleck'"):
        audiovae.info("oobblek")


def test_diagnose_averages_the_posterior_over_the_validation_clips(model_folder: Path) -> None:
    model = audiovae.load(model_folder)
    settings = SynthData(segment_seconds=0.05, valid_crops=4)
    found = audiovae.diagnose(model, settings, clips=3)
    assert isinstance(found, Diagnosis)
    data = open_dataset(settings, sample_rate=44_100, channels=2, multiple_of=model.hop_length)
    with torch.no_grad():
        clips = [model.encode(batch.x).moments for batch in data.valid_batches(1)][:3]
    mu, logvar = (torch.cat([moments[i][0] for moments in clips], dim=1) for i in (0, 1))  # type: ignore[index]
    kl = kl_standard_normal(mu, logvar).mean(1)  # [D]
    torch.testing.assert_close(found.kl, kl, rtol=1e-5, atol=0)
    torch.testing.assert_close(found.mean_variance, mu.var(1, correction=0), rtol=1e-4, atol=1e-9)
    rate = float(kl.sum()) * model.frame_rate / math.log(2)
    assert found.bits_per_second == pytest.approx(rate, rel=1e-5)
    assert found.active_units == int((mu.var(1, correction=0) > 0.01).sum())


def test_diagnose_raises_the_alarm_on_a_collapsed_model(tmp_path: Path) -> None:
    model = build(resolve("spec_frame", {"size": 0}))
    torch.nn.init.zeros_(model.bottleneck.moments.weight)  # type: ignore[union-attr]
    torch.nn.init.zeros_(model.bottleneck.moments.bias)  # type: ignore[union-attr]
    save_model(tmp_path / "dead", model)
    found = audiovae.diagnose(
        tmp_path / "dead", {"preset": "synth", "segment_seconds": 0.05}, clips=2
    )
    assert isinstance(found, Diagnosis)
    assert found.active_units == 0
    assert "posterior-collapse" in found.alarms[0] and "since" not in found.alarms[0]
    text = found.describe()
    assert "0 of" in text and "free_bits" in text


def test_diagnose_refuses_no_clips(model_folder: Path) -> None:
    with pytest.raises(ConfigError, match="clips must be at least 1, got 0"):
        audiovae.diagnose(model_folder, "synth", clips=0)


def test_diagnose_counts_the_codes_of_a_discrete_model() -> None:
    bottleneck = {"kind": "rvq", "n_codebooks": 2, "codebook_size": 64, "latent_dim": 4}
    torch.manual_seed(0)
    model = build(resolve("spec_frame", {"size": 0, "bottleneck": bottleneck})).eval()
    settings = SynthData(segment_seconds=0.05, valid_crops=4)
    found = audiovae.diagnose(model, settings, clips=3)
    assert isinstance(found, CodesDiagnosis)
    data = open_dataset(settings, sample_rate=44_100, channels=2, multiple_of=model.hop_length)
    with torch.no_grad():
        clips = [model.encode(batch.x).codes[0][0] for batch in data.valid_batches(1)][:3]
    for book, codes in zip(found.codebooks, torch.cat(clips, dim=1), strict=True):  # [F] each
        shares = codes.bincount(minlength=64) / len(codes)
        entropy = -sum(float(p) * math.log2(float(p)) for p in shares if p > 0)
        assert book.entropy == pytest.approx(entropy, abs=1e-5)
        assert book.used == len(codes.unique())
    assert found.bits_per_second == pytest.approx(2 * 6 * model.frame_rate)
    assert "codebook  codes  used  perplexity" in found.describe()
    assert f"{found.bits_per_second:,.0f} bits per second" in found.describe()
