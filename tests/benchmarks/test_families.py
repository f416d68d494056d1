"""The table of families: every row can be trained on its data, and what it says of a latent is true."""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType

import pytest
import torch

import audiovae
from audiovae.checkpoint import save_model
from audiovae.data import SynthData, open_dataset
from audiovae.data.tokens import read_tokens
from audiovae.models import build, resolve
from audiovae.nn.densities import kl_standard_normal


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, importable as it is for the others."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import families

    return families


def test_every_row_hears_24_khz_mono_and_continuous_ones_have_3000_numbers_at_most(
    benchmark: ModuleType,
) -> None:
    for row in benchmark.ROWS:
        config = benchmark.config_of(row, minutes=2.0)
        with torch.device("meta"):
            model = build(config.model)
        assert (config.minutes, model.sample_rate, model.channels) == (2.0, 24_000, 1)
        assert model.codebook_sizes or model.latent_dim * model.frame_rate <= 3_000


def test_the_rate_of_codes_is_that_of_the_packed_ones(benchmark: ModuleType) -> None:
    bottleneck = {"kind": "rvq", "latent_dim": 4, "n_codebooks": 3, "codebook_size": 16}
    torch.manual_seed(0)
    fields = {"size": 0, "sample_rate": 8_000, "channels": 1, "bottleneck": bottleneck}
    model = build(resolve("spec_frame", fields)).eval()
    clips = [0.1 * torch.randn(1, 1, 64 * model.hop_length) for _ in range(2)]
    said = benchmark.use_of_latent(model, clips)
    assert said["bits_s"] == pytest.approx(3 * math.log2(16) * model.frame_rate)
    with torch.no_grad():
        codes = torch.cat([model.encode(x).codes[0] for x in clips], dim=2)[0]
    shares = [torch.bincount(book) / len(book) for book in codes]
    perplexities = [float(torch.special.entr(share).sum().exp()) for share in shares]
    assert said["perplexity"] == pytest.approx(sum(perplexities) / 3, rel=1e-4)


def test_the_rate_of_a_continuous_latent_is_its_kl(benchmark: ModuleType) -> None:
    torch.manual_seed(0)
    model = build(resolve("spec_frame", {"size": 0, "sample_rate": 8_000, "channels": 1})).eval()
    x = 0.1 * torch.randn(1, 1, 32 * model.hop_length)
    with torch.no_grad():
        kl = kl_standard_normal(*model.encode(x).moments)  # [1, D, F]
    bits = float(kl.sum(1).mean()) * model.frame_rate / math.log(2)
    assert benchmark.use_of_latent(model, [x])["bits_s"] == pytest.approx(bits, rel=1e-4)


def test_the_token_row_learns_the_codes_of_training_crops(
    benchmark: ModuleType, tmp_path: Path
) -> None:
    """And is heard and rated through the codec that made them."""
    bottleneck = {"kind": "rvq", "latent_dim": 4, "n_codebooks": 3, "codebook_size": 16}
    torch.manual_seed(0)
    fields = {"size": 0, "sample_rate": 8_000, "channels": 1, "bottleneck": bottleneck}
    save_model(tmp_path / "codec", build(resolve("spec_frame", fields)).eval())
    codec = audiovae.load(tmp_path / "codec")
    settings = SynthData(segment_seconds=0.5)
    benchmark.write_crops_as_tokens(codec, settings, 3, tmp_path)
    data = open_dataset(settings, sample_rate=8_000, channels=1)
    for item, path in enumerate(sorted(tmp_path.glob("*.tokens"))):
        x = data.train_batch(benchmark.TOKEN_SEED, 0, range(item, item + 1)).x
        with torch.no_grad():
            assert torch.equal(read_tokens(path).codes, codec.encode(x).codes[0][0])
    assert item == 2
    model = build(
        resolve("token_transformer", {"size": 0, **benchmark.codec_fields(tmp_path / "codec")})
    )
    said = benchmark.use_of_latent(
        benchmark.sounding(model.eval()), [0.1 * torch.randn(1, 1, 8_000)]
    )
    assert said["bits_s"] > 0
