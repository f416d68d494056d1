"""Codes through the verbs: packed files of the nominal size, any number of the coarse codebooks, clear refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import audiovae
from audiovae.api.latent import read_latent, write_latent
from audiovae.checkpoint import save_model
from audiovae.errors import AudioError, LatentError
from audiovae.models import build, resolve

RATE, BOOKS, SIZE = 8_000, 5, 100  # 100 is no power of two: codes are packed in groups


def codec(folder: Path, seed: int = 0, **options: object) -> Path:
    """A mono codec at 8 kHz with fresh weights and codebooks where its features are."""
    torch.manual_seed(seed)
    fields = {
        "size": 0, "sample_rate": RATE, "channels": 1,
        "bottleneck": {"kind": "rvq", "latent_dim": 6, "n_codebooks": BOOKS, "codebook_size": SIZE},
    }  # fmt: skip
    model = build(resolve("spec_frame", fields | options))
    model.train()
    model(sound(8)[None], sample=True)  # k-means sets the codebooks
    model.commit(seed)
    save_model(folder, model.eval())
    return folder


def sound(seconds: float, channels: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return 0.2 * torch.randn(channels, int(seconds * RATE), generator=generator)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return codec(tmp_path_factory.mktemp("codecs") / "codec")


def test_a_file_of_codes_weighs_its_nominal_rate(folder: Path, tmp_path: Path) -> None:
    x, file = sound(60), tmp_path / "a.safetensors"
    latent = audiovae.encode(folder, x, file, sample_rate=RATE)
    nominal = latent.bits_per_second * latent.seconds / 8
    assert nominal > 10_000
    assert file.stat().st_size <= 1.02 * nominal + 1_000
    back = read_latent(file)
    assert all(map(torch.equal, back.codes, latent.codes))
    assert back[2:9] == latent[2:9]
    decoded = audiovae.decode(folder, file)
    torch.testing.assert_close(
        decoded.samples,
        audiovae.reconstruct(folder, x, sample_rate=RATE).samples,
        atol=1e-5,
        rtol=0,
    )


def test_codes_in_blocks_are_the_models_codes(folder: Path) -> None:
    x = sound(7.3)
    with torch.no_grad():
        whole = audiovae.load(folder).encode(x[None]).codes[0][0]
    assert torch.equal(audiovae.encode(folder, x, sample_rate=RATE).codes[0], whole)


@pytest.mark.parametrize("count", range(1, BOOKS + 1))
def test_any_number_of_the_coarse_codebooks_decodes(folder: Path, count: int) -> None:
    x = sound(1)
    kept = audiovae.encode(folder, x, sample_rate=RATE, n_codebooks=count)
    assert kept.codebook_sizes == ((SIZE,) * count,)
    all_of_them = audiovae.encode(folder, x, sample_rate=RATE)
    later = audiovae.decode(folder, all_of_them, n_codebooks=count).samples
    assert torch.equal(audiovae.decode(folder, kept).samples, later)
    through = audiovae.reconstruct(folder, x, sample_rate=RATE, n_codebooks=count)
    assert torch.equal(through.samples, later)
    assert later.shape == x.shape
    rate = kept.bits_per_second / 1000
    by_rate = audiovae.encode(folder, x, sample_rate=RATE, kbps=rate)
    assert torch.equal(by_rate.codes[0], kept.codes[0])


def test_channels_coded_alone_come_back_alone(folder: Path, tmp_path: Path) -> None:
    x = sound(1, channels=3)
    latent = audiovae.encode(
        folder, x, tmp_path / "a.safetensors", sample_rate=RATE, per_channel=True
    )
    assert latent.codes[0].shape[:2] == (3, BOOKS)
    decoded = audiovae.decode(folder, tmp_path / "a.safetensors").samples
    for channel, back in zip(x, decoded, strict=True):
        alone = audiovae.reconstruct(folder, channel, sample_rate=RATE).samples[0]
        torch.testing.assert_close(back, alone, atol=1e-5, rtol=0)


def test_more_than_two_channels_are_refused_unless_each_goes_alone(folder: Path) -> None:
    with pytest.raises(AudioError, match="channels"):
        audiovae.encode(folder, sound(1, channels=3), sample_rate=RATE)


def test_codebooks_that_are_not_there_are_refused(folder: Path, model_folder: Path) -> None:
    x = sound(1)
    with pytest.raises(LatentError, match="there are 5 codebooks, n_codebooks was 6"):
        audiovae.encode(folder, x, sample_rate=RATE, n_codebooks=6)
    few = audiovae.encode(folder, x, sample_rate=RATE, n_codebooks=2)
    with pytest.raises(LatentError, match="there are 2 codebooks, n_codebooks was 3"):
        audiovae.decode(folder, few, n_codebooks=3)
    with pytest.raises(
        LatentError, match=r"the first codebook alone takes .* kbit/s, kbps was 0.1"
    ):
        audiovae.encode(folder, x, sample_rate=RATE, kbps=0.1)
    with pytest.raises(LatentError, match="a continuous latent has no codebooks"):
        audiovae.encode(model_folder, x, sample_rate=RATE, n_codebooks=1)


def test_codes_of_another_codec_or_out_of_range_are_refused(folder: Path, tmp_path: Path) -> None:
    other = codec(tmp_path / "other", seed=1)
    latent = audiovae.encode(folder, sound(1), sample_rate=RATE)
    with pytest.raises(LatentError, match="the latent was made by the model"):
        audiovae.decode(other, latent)
    wrong = latent._replace(codes=(latent.codes[0] + SIZE,))
    with pytest.raises(LatentError, match=r"0 to 99"):
        audiovae.decode(folder, wrong)
    with pytest.raises(LatentError, match="a code of a codebook of 100 is 0 to 99"):
        write_latent(tmp_path / "a.safetensors", wrong)
    assert not (tmp_path / "a.safetensors").exists()
