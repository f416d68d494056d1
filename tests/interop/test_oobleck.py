"""Parity with diffusers' AutoencoderOobleck, and the strictness of the table."""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor, nn

from audiovae.bottlenecks import GaussianConfig, VQConfig
from audiovae.errors import CheckpointError, ConfigError
from audiovae.interop import oobleck as interop
from audiovae.models.oobleck import Oobleck, OobleckConfig, oobleck

os.environ.setdefault("HF_HUB_OFFLINE", "1")

SMALL = OobleckConfig(
    sample_rate=16_000,
    channels=2,
    width=6,
    strides=(2, 4, 6),
    multiples=(1, 3, 2),
    bottleneck=GaussianConfig(latent_dim=3, parametrisation="softplus"),
)
MONO = OobleckConfig(
    sample_rate=8_000,
    channels=1,
    width=10,
    decoder_width=14,
    strides=(4,),
    multiples=(3,),
    bottleneck=GaussianConfig(latent_dim=5, parametrisation="softplus"),
)


def peer_of(config: OobleckConfig, seed: int = 0) -> nn.Module:
    """diffusers' net of this config, every parameter filled with distinct random values."""
    from diffusers import AutoencoderOobleck

    with torch.device("meta"):  # every weight is filled below
        peer = AutoencoderOobleck(**interop.config_to_diffusers(config)).eval()
    peer.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in peer.named_parameters():
            if name.endswith("weight_g"):  # a norm is positive; these sizes keep the deep sum tame
                parameter.uniform_(0.4, 0.9, generator=generator)
            else:
                parameter.normal_(0.0, 0.3, generator=generator)
    return peer


def ours_of(peer: nn.Module, config: OobleckConfig) -> Oobleck:
    with torch.device("meta"):
        model = Oobleck(config).eval()
    weights = interop.weights_from_diffusers(peer.state_dict(), config)
    model.load_state_dict(weights, assign=True)
    return model


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    """The issue's bar: max|a - b| <= 1e-5 max|b|, on outputs that are not almost constant."""
    assert theirs.std() > 0.01
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def assert_outputs_equal(config: OobleckConfig, frames: int) -> None:
    peer = peer_of(config)
    model = ours_of(peer, config)
    generator = torch.Generator().manual_seed(1)
    x = 0.3 * torch.randn(2, config.channels, frames * config.hop_length, generator=generator)
    with torch.inference_mode():
        posterior = peer.encode(x).latent_dist
        bottled = model.encode(x)
        assert bottled.moments is not None
        assert_close(bottled.moments[0], posterior.mean)
        assert_close((bottled.moments[1] / 2).exp(), posterior.std)
        assert_close(model.decode(posterior.mean), peer.decode(posterior.mean).sample)


@pytest.mark.parametrize("config", [SMALL, MONO], ids=["stereo", "mono"])
def test_outputs_equal_diffusers_oobleck(config: OobleckConfig) -> None:
    assert_outputs_equal(config, frames=9)


def test_outputs_equal_diffusers_oobleck_at_the_published_size() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in Oobleck(oobleck()).parameters()) == 156_112_514
    assert_outputs_equal(oobleck(), frames=3)


def test_kl_is_half_of_diffusers_in_nats_per_second() -> None:
    """diffusers leaves out the one half and averages over frames instead of summing over a second."""
    peer, x = peer_of(SMALL), torch.randn(2, 2, 480)
    with torch.inference_mode():
        theirs = peer.encode(x).latent_dist.kl()
        ours = ours_of(peer, SMALL).encode(x).terms["kl"]
    torch.testing.assert_close(ours, theirs / 2 * SMALL.frame_rate)


def test_default_config_is_the_published_one() -> None:
    from diffusers import AutoencoderOobleck

    with torch.device("meta"):
        published = AutoencoderOobleck().config
    assert interop.config_from_diffusers(published) == oobleck()


@pytest.mark.parametrize("parametrised", [False, True], ids=["weight_g", "parametrizations"])
def test_there_and_back_is_the_same_in_both_spellings(parametrised: bool) -> None:
    config = SMALL
    ours = Oobleck(config).state_dict()
    theirs = interop.weights_to_diffusers(ours, config, parametrised=parametrised)
    assert ("encoder.conv1.weight_g" in theirs) is not parametrised
    back = interop.weights_from_diffusers(theirs, config)
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name], ours[name]) for name in ours)


def test_diffusers_loads_what_we_export() -> None:
    model = Oobleck(SMALL)
    peer = peer_of(SMALL)
    peer.load_state_dict(interop.weights_to_diffusers(model.state_dict(), SMALL), strict=True)
    x = torch.randn(1, 2, 240)
    with torch.inference_mode():
        assert_close(model.encode(x).z, peer.encode(x).latent_dist.mean)


def test_configs_go_there_and_back() -> None:
    for config in (SMALL, MONO, oobleck()):
        assert interop.config_from_diffusers(interop.config_to_diffusers(config)) == config


def test_missing_left_over_and_misshapen_weights_are_named() -> None:
    state = interop.weights_to_diffusers(Oobleck(SMALL).state_dict(), SMALL)
    lacking = {k: w for k, w in state.items() if k != "decoder.snake1.alpha"}
    with pytest.raises(CheckpointError, match=r"lack: decoder\.snake1\.alpha;"):
        interop.weights_from_diffusers(lacking, SMALL)
    with pytest.raises(CheckpointError, match=r"beside what is known: a, b, c and 1 more"):
        interop.weights_from_diffusers(state | dict.fromkeys("abcd", torch.zeros(1)), SMALL)
    narrow = state | {"encoder.conv2.bias": torch.zeros(4)}
    with pytest.raises(CheckpointError, match=r"encoder\.conv2\.bias \(4,\) instead of \(6,\)"):
        interop.weights_from_diffusers(narrow, SMALL)
    ours = Oobleck(SMALL).state_dict() | {"extra": torch.zeros(1)}
    with pytest.raises(CheckpointError, match="beside what is known: extra"):
        interop.weights_to_diffusers(ours, SMALL)


def test_configs_without_a_counterpart_are_refused() -> None:
    with pytest.raises(
        ConfigError, match="width of twice latent_dim, got width 3 and latent_dim 8"
    ):
        interop.config_to_diffusers(oobleck(0))
    for bottleneck in (GaussianConfig(latent_dim=3), VQConfig(latent_dim=3)):
        with pytest.raises(ConfigError, match="the softplus parametrisation, got"):
            interop.config_to_diffusers(SMALL.model_copy(update={"bottleneck": bottleneck}))
    values = interop.config_to_diffusers(SMALL)
    with pytest.raises(ConfigError, match="must be twice decoder_input_channels, got 12 and 3"):
        interop.config_from_diffusers(values | {"encoder_hidden_size": 12})
    del values["audio_channels"]
    with pytest.raises(ConfigError, match="'audio_channels'"):
        interop.config_from_diffusers(values)
