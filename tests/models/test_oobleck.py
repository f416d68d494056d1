"""Oobleck: its sizes, its lengths and how far it reaches."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from audiovae.bottlenecks import GaussianConfig
from audiovae.errors import AudioError, ConfigError
from audiovae.models.oobleck import Oobleck, OobleckConfig, oobleck
from audiovae.nn.noise import generators

CONFIGS = {
    "even": OobleckConfig(
        channels=1,
        width=3,
        strides=(2, 4),
        multiples=(1, 2),
        bottleneck=GaussianConfig(latent_dim=2, parametrisation="softplus"),
    ),
    "odd": OobleckConfig(
        channels=2,
        width=2,
        strides=(3, 5),
        multiples=(2, 1),
        bottleneck=GaussianConfig(latent_dim=3, parametrisation="softplus"),
    ),
    "logvar": OobleckConfig(width=4, strides=(6,), multiples=(2,), bottleneck=GaussianConfig()),
    "size 0": oobleck(0),
}


def model_of(config: OobleckConfig) -> Oobleck:
    """A random model in float64 whose last and least path still shows in the output."""
    torch.manual_seed(0)
    model = Oobleck(config).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("original0"):
                parameter.uniform_(0.8, 1.2)
            elif not name.endswith("original1"):
                parameter.normal_(0.0, 0.2)
    return model


@torch.inference_mode()
def changed(net: nn.Module, length: int, channels: int, position: int) -> list[int]:
    """The outputs that change when the input at one position does."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, channels, length, generator=generator, dtype=torch.float64)
    y = net(x)
    x[..., position] += 10.0
    return torch.nonzero((net(x) != y).any(1)[0]).flatten().tolist()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_encoder_context_is_exact(config: OobleckConfig) -> None:
    """A sample moves the frames whose context holds it, and no frame one sample further."""
    model, hop = model_of(config), config.hop_length
    left, right = model.encoder_context
    frames = 2 * (max(left, right) // hop + 2)
    frame = frames // 2
    for position in (frame * hop - left, frame * hop + hop - 1 + right):
        assert frame in changed(model.encoder, frames * hop, config.channels, position)
    for position in (frame * hop - left - 1, frame * hop + hop + right):
        assert frame not in changed(model.encoder, frames * hop, config.channels, position)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_decoder_context_is_exact(config: OobleckConfig) -> None:
    """A frame moves the samples of the frames whose context holds it, and no frame further."""
    model, hop, latent_dim = model_of(config), config.hop_length, config.bottleneck.latent_dim
    left, right = model.decoder_context
    frame = max(left, right) + 1
    moved = {i // hop for i in changed(model.decoder, 2 * frame + 1, latent_dim, frame)}
    assert (min(moved), max(moved)) == (frame - right, frame + left)


def test_receptive_field_and_delay_follow_from_the_contexts() -> None:
    model = Oobleck(oobleck(0))
    assert model.encoder_context == (14_885, 14_885)
    assert model.decoder_context == (10, 10)
    assert model.delay == 2047 + 14_885 + 10 * 2048
    assert model.receptive_field == 2 * model.delay - 2046


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_every_length_comes_back_as_it_was(config: OobleckConfig) -> None:
    model, hop = Oobleck(config), config.hop_length
    with torch.inference_mode():
        for length in (1, hop - 1, hop, hop + 1, 3 * hop + 2):
            out = model(torch.randn(1, config.channels, length), sample=True)
            assert out.x_hat.shape == (1, config.channels, length)
            assert out.z.shape[-1] == -(-length // hop)
            assert out.x_hat.isfinite().all()


def test_a_batch_equals_its_single_items() -> None:
    model = Oobleck(oobleck(0))
    x = torch.randn(3, 2, 5000)
    with torch.inference_mode():
        batch = model(x, sample=True, generators=generators(7, items=3)).x_hat
        single = torch.cat(
            [
                model(x[i : i + 1], sample=True, generators=generators(7, items=1, first=i)).x_hat
                for i in range(3)
            ]
        )
    assert (batch - single).abs().max() <= 1e-5 * single.abs().max()


def test_sigma_of_softplus_has_its_floor_and_a_gradient_everywhere() -> None:
    """sigma = softplus(scale) + 1e-4: about scale when large, never below the floor."""
    bottleneck = Oobleck(CONFIGS["even"]).bottleneck
    scale = torch.tensor([-200.0, 0.0, 50.0])
    h = torch.stack([torch.zeros(3), torch.zeros(3), scale, scale])[None].requires_grad_()
    bottled = bottleneck(h, sample=False)
    expected = torch.tensor([1e-4, torch.log(torch.tensor(2.0)) + 1e-4, 50.0001])
    torch.testing.assert_close((bottled.moments[1][0, 0] / 2).exp(), expected)
    bottled.terms["kl"].backward()
    assert h.grad is not None and h.grad.isfinite().all()


def test_one_step_lowers_the_loss_and_reaches_every_weight() -> None:
    torch.manual_seed(0)
    model = Oobleck(oobleck(0))
    x = 0.1 * torch.randn(1, 2, 3 * 2048)

    def loss() -> Tensor:
        out = model(x, sample=True, generators=generators(0, items=1))
        return (out.x_hat - x).abs().mean() + 1e-6 * out.terms["kl"]

    before = loss()
    before.backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    torch.optim.AdamW(model.parameters(), 1e-3).step()
    assert loss() < before


def test_sizes_grow_from_the_test_model_to_the_published_one() -> None:
    with torch.device("meta"):
        weights = [sum(p.numel() for p in Oobleck(oobleck(s)).parameters()) for s in range(5)]
    assert weights[0] < 100_000
    assert weights == sorted(weights)
    assert weights[4] == 156_112_514


@pytest.mark.parametrize("size", [-1, 5])
def test_a_size_off_the_dial_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=f"size must be 0 to 4, got {size}"):
        oobleck(size)


def test_impossible_strides_are_refused() -> None:
    with pytest.raises(ValidationError, match="got 2 strides and 1 multiples"):
        OobleckConfig(strides=(2, 4), multiples=(1,))
    with pytest.raises(ValidationError, match="greater than or equal to 2"):
        OobleckConfig(strides=(1,), multiples=(1,))


def test_another_number_of_channels_is_refused() -> None:
    with pytest.raises(AudioError, match=r"the model has 2 channel\(s\), the sound has 1"):
        Oobleck(oobleck(0)).encode(torch.zeros(1, 1, 10))
