"""Oobleck from stable-audio-tools' layout, against that package's own classes."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from audiovae.bottlenecks import GaussianConfig
from audiovae.errors import CheckpointError, ConfigError
from audiovae.interop import oobleck as interop
from audiovae.interop.formats import read
from audiovae.interop.keymap import new_weight_norm
from audiovae.models.oobleck import Oobleck, OobleckConfig, oobleck

pytestmark = pytest.mark.filterwarnings("ignore")  # deprecated parts of torch, of the package

SMALL = OobleckConfig(
    sample_rate=16_000,
    width=6,
    decoder_width=5,
    strides=(2, 4, 6),
    multiples=(1, 3, 2),
    bottleneck=GaussianConfig(latent_dim=3, parametrisation="softplus"),
)


STAND_INS = {  # what its autoencoders import and do not use: name -> attributes
    "torchaudio": (),
    "torchaudio.transforms": ("Resample",),
    "alias_free_torch": ("Activation1d",),
    "stable_audio_tools.inference.sampling": ("sample",),
    "stable_audio_tools.inference.utils": ("prepare_audio",),
    "stable_audio_tools.models.diffusion": (
        *("ConditionedDiffusionModel", "DAU1DCondWrapper", "UNet1DCondWrapper", "DiTWrapper"),
    ),
    "stable_audio_tools.models.transformer": (
        *("ContinuousTransformer", "TransformerBlock", "RotaryEmbedding"),
    ),
}


@pytest.fixture(scope="module")
def create() -> Iterator[Callable[..., nn.Module]]:
    """The package's own `create_autoencoder_from_config`, without what its packages import besides."""
    found = importlib.util.find_spec("stable_audio_tools")
    assert found is not None and found.submodule_search_locations is not None
    before = set(sys.modules)
    for name in ("", ".models", ".inference"):
        package = types.ModuleType(f"stable_audio_tools{name}")
        package.__path__ = [f"{found.submodule_search_locations[0]}/{name.removeprefix('.')}"]
        sys.modules[package.__name__] = package
    for name, attributes in STAND_INS.items():
        stand_in = sys.modules.setdefault(name, types.ModuleType(name))
        stand_in.__spec__ = stand_in.__spec__ or importlib.machinery.ModuleSpec(name, None)
        for attribute in attributes:
            if not hasattr(stand_in, attribute):
                setattr(stand_in, attribute, type(attribute, (nn.Module,), {}))
    sys.modules["torchaudio"].transforms = sys.modules["torchaudio.transforms"]  # type: ignore[attr-defined]
    module = importlib.import_module("stable_audio_tools.models.autoencoders")
    yield module.create_autoencoder_from_config
    for name in set(sys.modules) - before:
        del sys.modules[name]


def model_config(config: OobleckConfig, *, inside: bool = False, **changes: Any) -> dict[str, Any]:
    """A model_config.json; `changes` are of the decoder's config."""
    shared = {"c_mults": list(config.multiples), "strides": list(config.strides), "use_snake": True}
    latent_dim = config.bottleneck.latent_dim
    encoder = shared | {"in_channels": config.channels, "channels": config.width}
    decoder = shared | {"out_channels": config.channels, "final_tanh": False}
    decoder |= {"channels": config.decoder_width or config.width, "latent_dim": latent_dim}
    net = {
        "encoder": {"type": "oobleck", "config": encoder | {"latent_dim": 2 * latent_dim}},
        "decoder": {"type": "oobleck", "config": decoder | changes},
        "bottleneck": {"type": "vae"},
        "latent_dim": latent_dim,
        "downsampling_ratio": config.hop_length,
        "io_channels": config.channels,
    }
    whole = {"pretransform": {"type": "autoencoder", "config": net}, "io_channels": latent_dim}
    return {
        "model_type": "diffusion_cond" if inside else "autoencoder",
        "sample_rate": config.sample_rate,
        "audio_channels": config.channels,
        "model": whole if inside else net,
    }


def filled(net: nn.Module) -> nn.Module:
    """Distinct random values everywhere; its weight norm is the old one."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("weight_g"):
                parameter.uniform_(0.4, 0.9, generator=generator)
            else:
                parameter.normal_(0.0, 0.3, generator=generator)
    return net.eval()


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    assert theirs.std() > 0.01
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@torch.inference_mode()
def assert_equal(model: Oobleck, net: Any) -> None:
    x = 0.3 * torch.randn(2, SMALL.channels, 9 * SMALL.hop_length)
    mean, scale = net.encoder(x).chunk(2, dim=1)
    bottled = model.encode(x)
    assert bottled.moments is not None
    assert_close(bottled.z, mean)
    assert_close((bottled.moments[1] / 2).exp(), nn.functional.softplus(scale) + 1e-4)
    assert_close(model.decode(mean), net.decoder(mean))


STATES: dict[str, Callable[[dict[str, Tensor]], dict[str, Any]]] = {
    "alone": lambda state: state,
    "new weight norm": lambda state: state,
    "in a state_dict": lambda state: {"state_dict": state},
    "in a whole model": lambda state: (
        {f"pretransform.model.{k}": w for k, w in state.items()}
        | {"model.model.transformer.layers.0.ff.weight": torch.zeros(3)}
        | {"conditioner.conditioners.seconds_total.bias": torch.zeros(3)}
    ),
    "in a training": lambda state: {
        "state_dict": {f"autoencoder.{k}": w + 1 for k, w in state.items()}
        | {f"autoencoder_ema.online_model.{k}": w + 1 for k, w in state.items()}
        | {f"autoencoder_ema.ema_model.{k}": w for k, w in state.items()}
        | {"discriminator.weight": torch.zeros(3)},
        "global_step": 7,
    },
}


@pytest.mark.parametrize("where", STATES)
def test_outputs_equal_the_genuine_net(
    tmp_path: Path, where: str, create: Callable[..., nn.Module]
) -> None:
    net = filled(create(model_config(SMALL)))
    state = dict(net.state_dict())
    if where == "new weight norm":
        state = new_weight_norm(state)
    torch.save(STATES[where](state), tmp_path / "model.ckpt")
    values = model_config(SMALL, inside=where == "in a whole model")
    (tmp_path / "model_config.json").write_text(json.dumps(values))
    config, weights = read("stable-audio-tools", tmp_path)
    assert config == SMALL
    model = Oobleck(SMALL).eval()
    model.load_state_dict(weights)
    assert_equal(model, net)


def test_the_published_checkpoint_has_these_keys(create: Callable[..., nn.Module]) -> None:
    """Named and shaped as in the written-down layout of Stable Audio's checkpoints."""
    with torch.device("meta"):
        state = create(model_config(oobleck())).state_dict()
    listed = {
        "encoder.layers.0.weight_v": (128, 2, 7),
        "encoder.layers.1.layers.0.layers.0.alpha": (128,),
        "encoder.layers.5.layers.2.layers.3.weight_g": (1024, 1, 1),
        "encoder.layers.1.layers.3.beta": (128,),
        "encoder.layers.5.layers.4.weight_v": (2048, 1024, 16),
        "encoder.layers.6.alpha": (2048,),
        "encoder.layers.7.bias": (128,),
        "decoder.layers.0.weight_v": (2048, 64, 7),
        "decoder.layers.1.layers.0.alpha": (2048,),
        "decoder.layers.1.layers.1.weight_v": (2048, 1024, 16),
        "decoder.layers.5.layers.4.layers.1.bias": (128,),
        "decoder.layers.6.beta": (128,),
        "decoder.layers.7.weight_v": (2, 128, 7),
    }
    assert {name: tuple(state[name].shape) for name in listed} == listed
    assert "decoder.layers.7.bias" not in state
    weights = interop.weights_from_stable_audio_tools(state, oobleck())
    assert sum(w.numel() for w in weights.values()) == 156_112_514


@pytest.mark.parametrize("inside", [False, True], ids=["autoencoder", "inside"])
def test_the_published_config_is_the_preset(inside: bool) -> None:
    values = model_config(oobleck(), inside=inside)
    assert interop.config_from_stable_audio_tools(values) == oobleck()


def test_missing_and_left_over_weights_are_named(
    tmp_path: Path, create: Callable[..., nn.Module]
) -> None:
    state = create(model_config(SMALL)).state_dict()
    inside = {f"pretransform.model.{k}": w for k, w in state.items()}
    for extra in ({"a": torch.zeros(1)}, {"pretransform.model.a": torch.zeros(1)}):
        whole = (inside if "a" not in extra else state) | extra
        with pytest.raises(CheckpointError, match="beside what is known: a;"):
            interop.weights_from_stable_audio_tools(whole, SMALL)
    del inside["pretransform.model.encoder.layers.0.bias"]
    safetensors.torch.save_file(inside, tmp_path / "model.safetensors")
    (tmp_path / "model_config.json").write_text(json.dumps(model_config(SMALL, inside=True)))
    with pytest.raises(CheckpointError, match=r"the weights lack: encoder\.layers\.0\.bias;"):
        read("stable-audio-tools", tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"final_tanh": True}, r"decoder\.config\.final_tanh must be False, got True"),
        ({"use_snake": False}, r"decoder\.config\.use_snake must be True, got False"),
        ({"use_nearest_upsample": True}, "use_nearest_upsample must be False, got True"),
        ({"strides": [2, 4, 4]}, r"strides must be the same .*, got \[2, 4, 6\] and \[2, 4, 4\]"),
        ({"latent_dim": 4}, "latent_dim must be twice the decoder's, got 6 and 4"),
    ],
)
def test_other_nets_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        interop.config_from_stable_audio_tools(model_config(SMALL, **changes))


def test_defaults_are_stable_audio_tools_own_and_other_kinds_are_refused() -> None:
    values = model_config(SMALL)
    del values["model"]["decoder"]["config"]["final_tanh"]
    with pytest.raises(ConfigError, match="final_tanh must be False, got True"):
        interop.config_from_stable_audio_tools(values)
    values["model"]["bottleneck"]["type"] = "rvq"
    with pytest.raises(ConfigError, match="a vae bottleneck are known, got oobleck, oobleck, rvq"):
        interop.config_from_stable_audio_tools(values)
    del values["model"]["encoder"]
    with pytest.raises(ConfigError, match="it lacks 'encoder'"):
        interop.config_from_stable_audio_tools(values)
