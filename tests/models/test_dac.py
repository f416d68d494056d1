"""DAC: its rates and sizes, its lengths at odd strides, its codes, and how far it reaches."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from audiovae.bottlenecks import GaussianConfig
from audiovae.errors import AudioError, ConfigError, LatentError
from audiovae.models.dac import DAC, DACConfig, dac_16k, dac_24k, dac_44k, dac_bottleneck

ODD = DACConfig(
    sample_rate=8_000,
    width=3,
    decoder_width=12,
    strides=(3, 5),
    bottleneck=dac_bottleneck(12, n_codebooks=3, codebook_size=16, codebook_dim=2),
)


def model_of(config: DACConfig = ODD) -> DAC:
    torch.manual_seed(0)
    return DAC(config).eval()


@pytest.mark.parametrize(
    ("preset", "kbps", "frames_a_second"),
    [(dac_44k, 7.75, 86.13), (dac_24k, 24.0, 75.0), (dac_16k, 6.0, 50.0)],
)
def test_presets_have_the_published_rates(
    preset: Callable[[], DACConfig], kbps: float, frames_a_second: float
) -> None:
    config = preset()
    assert config.frame_rate == pytest.approx(frames_a_second, abs=0.01)
    bits = 10 * config.bottleneck.n_codebooks  # 1024 codes each
    assert config.bottleneck.codebook_size == 2**10
    assert config.frame_rate * bits / 1000 == pytest.approx(kbps, abs=0.01)


@pytest.mark.parametrize("preset", [dac_44k, dac_24k, dac_16k])
def test_sizes_grow_from_the_test_model_to_the_published_one(
    preset: Callable[[int], DACConfig],
) -> None:
    with torch.device("meta"):
        weights = [sum(p.numel() for p in DAC(preset(s)).parameters()) for s in range(5)]
    assert weights[0] < 100_000
    assert weights == sorted(weights)
    assert 74e6 < weights[4] < 77e6


@torch.inference_mode()
def test_every_length_comes_back_as_it_was_at_odd_strides() -> None:
    model, hop = model_of(), ODD.hop_length
    for length in (1, hop - 1, hop, hop + 1, 3 * hop + 2):
        out = model(torch.randn(2, 1, length))
        assert out.x_hat.shape == (2, 1, length)
        assert out.codes[0].shape == (2, 3, -(-length // hop))
        assert out.x_hat.isfinite().all()


@torch.inference_mode()
def test_the_sound_stays_within_full_scale() -> None:
    model = model_of()
    z = 100 * torch.randn(1, model.latent_dim, 20)
    assert model.decoder(z).abs().max() > 1
    assert model.decode(z).abs().max() <= 1


@torch.inference_mode()
def test_codes_decode_to_what_the_latent_does_and_more_codebooks_come_nearer() -> None:
    model = model_of()
    bottled = model.encode(torch.randn(1, 1, 600))
    codes = bottled.codes[0]
    assert torch.equal(model.decode([codes], 600), model.decode(bottled.z, 600))
    one, two = (model.from_codes([codes[:, :k]]) for k in (1, 2))
    assert (model.from_codes([codes]) - bottled.z).abs().max() == 0
    parts = [layer.decode(codes[:, k]).mT for k, layer in enumerate(model.bottleneck.layers)]
    torch.testing.assert_close(one, parts[0])
    torch.testing.assert_close(two, parts[0] + parts[1])


@torch.inference_mode()
def test_a_batch_equals_its_single_items() -> None:
    model, x = model_of(), torch.randn(3, 1, 700)
    batch = model(x).x_hat
    single = torch.cat([model(x[i : i + 1]).x_hat for i in range(3)])
    assert (batch - single).abs().max() <= 1e-5 * single.abs().max()


@torch.inference_mode()
def test_contexts_are_exact_at_odd_strides() -> None:
    """The farthest inputs that a frame's context holds move it, and the next ones do not."""
    model = model_of().double()
    hop, (left, right) = ODD.hop_length, model.encoder_context
    x = torch.randn(1, 1, 60 * hop, dtype=torch.float64)
    before = model.encoder(x)
    for position, moves in ((-left, True), (-left - 1, False), (right, True), (right + 1, False)):
        changed = x.clone()
        changed[..., 30 * hop + position + (hop - 1 if position > 0 else 0)] += 10
        assert (model.encoder(changed)[..., 30] != before[..., 30]).any() == moves
    z = torch.randn(1, 12, 41, dtype=torch.float64)
    before, (left, right) = model.decoder(z).unflatten(-1, (41, hop)), model.decoder_context
    z[..., 20] += 10
    moved = (model.decoder(z).unflatten(-1, (41, hop)) != before).any(-1).any(1)[0].nonzero()
    assert (int(moved.min()), int(moved.max())) == (20 - right, 20 + left)


def test_one_step_lowers_the_loss_and_reaches_every_weight() -> None:
    model = model_of().train()
    x = 0.5 * torch.randn(2, 1, 40 * ODD.hop_length)

    def loss() -> Tensor:
        out = model(x)
        return (out.x_hat - x).abs().mean() + out.terms["codebook"] + 0.25 * out.terms["commitment"]

    before = loss()
    before.backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    torch.optim.AdamW(model.parameters(), 1e-3).step()
    assert loss() < before


@torch.inference_mode()
def test_it_may_be_continuous() -> None:
    """With a Gaussian bottleneck it is the VAE of Stable Audio 1: twice the channels, mean and scale."""
    config = ODD.model_copy(update={"bottleneck": GaussianConfig(latent_dim=4)})
    out = model_of(config)(torch.randn(1, 1, 100))
    assert out.x_hat.shape == (1, 1, 100)
    assert out.moments is not None and out.z.shape == (1, 4, 7)
    with pytest.raises(LatentError, match="its latent is continuous"):
        model_of(config).from_codes([torch.zeros(1, 1, 1, dtype=torch.int64)])


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="size must be 0 to 4, got 5"):
        dac_44k(5)
    with pytest.raises(ValidationError, match=r"each of the 3 strides: .* multiple of 8, got 12"):
        DACConfig(strides=(2, 4, 8), decoder_width=12)
    model = model_of()
    with pytest.raises(AudioError, match=r"the model has 1 channel\(s\), the sound has 2"):
        model.encode(torch.zeros(1, 2, 10))
    codes = torch.full((1, 3, 4), 16)
    with pytest.raises(LatentError, match="codebook 0 has codes 0 to 15, got 16"):
        model.decode([codes])
    with pytest.raises(LatentError, match="1 to 3 codebooks"):
        model.decode([torch.zeros(1, 4, 4, dtype=torch.int64)])
