"""Oobleck from stable-audio-tools' layout, against a net laid out as that package's."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from audiovae.bottlenecks import GaussianConfig
from audiovae.errors import CheckpointError, ConfigError
from audiovae.interop import oobleck as interop
from audiovae.interop.formats import read
from audiovae.interop.keymap import old_weight_norm
from audiovae.models.oobleck import Oobleck, OobleckConfig, oobleck

SMALL = OobleckConfig(
    sample_rate=16_000,
    width=6,
    decoder_width=5,
    strides=(2, 4, 6),
    multiples=(1, 3, 2),
    bottleneck=GaussianConfig(latent_dim=3, parametrisation="softplus"),
)


class ToolsSnake(nn.Module):
    """Its dials have the shape [W], where ours have [1, W, 1]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.alpha, self.beta = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        alpha, beta = self.alpha.exp()[:, None], self.beta.exp()[:, None]
        return x + torch.sin(x * alpha) ** 2 / (beta + 1e-9)


class Layers(nn.Module):
    """A row of layers, with the name `layers`; added to what came in for a residual unit."""

    def __init__(self, *layers: nn.Module, residual: bool = False) -> None:
        super().__init__()
        self.layers, self.residual = nn.Sequential(*layers), residual

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) + x if self.residual else self.layers(x)


def conv(a: int, b: int, kernel: int, padding: int, **options: Any) -> nn.Module:
    return weight_norm(nn.Conv1d(a, b, kernel, padding=padding, **options))


def units(width: int) -> list[Layers]:
    return [
        Layers(
            *(ToolsSnake(width), conv(width, width, 7, 3 * d, dilation=d)),
            *(ToolsSnake(width), conv(width, width, 1, 0)),
            residual=True,
        )
        for d in (1, 3, 9)
    ]


def tools_net(config: OobleckConfig) -> nn.ModuleDict:
    """The two halves as stable-audio-tools nests them; its bottleneck has no weights."""
    channels, latent_dim = config.channels, config.bottleneck.latent_dim
    widths, down, up = config.encoder_widths, [], []
    for a, b, s in zip(widths, widths[1:], config.strides, strict=False):
        pad = math.ceil(s / 2)
        down += [Layers(*units(a), ToolsSnake(a), conv(a, b, 2 * s, pad, stride=s))]
    decoder_widths: Sequence[int] = config.decoder_widths
    for a, b, s in zip(decoder_widths, decoder_widths[1:], config.strides[::-1], strict=False):
        longer = nn.ConvTranspose1d(a, b, 2 * s, stride=s, padding=math.ceil(s / 2))
        up += [Layers(ToolsSnake(a), weight_norm(longer), *units(b))]
    first, last = widths[0], widths[-1]
    start, end = decoder_widths[0], decoder_widths[-1]
    tail = [ToolsSnake(last), conv(last, 2 * latent_dim, 3, 1)]
    out = [ToolsSnake(end), conv(end, channels, 7, 3, bias=False), nn.Identity()]
    return nn.ModuleDict(
        {
            "encoder": Layers(conv(channels, first, 7, 3), *down, *tail),
            "decoder": Layers(conv(latent_dim, start, 7, 3), *up, *out),
        }
    )


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
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("original0"):
                parameter.uniform_(0.4, 0.9, generator=generator)
            else:
                parameter.normal_(0.0, 0.3, generator=generator)
    return net


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    assert theirs.std() > 0.01
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@torch.inference_mode()
def assert_equal(model: Oobleck, net: nn.ModuleDict) -> None:
    x = 0.3 * torch.randn(2, SMALL.channels, 9 * SMALL.hop_length)
    mean, scale = net["encoder"](x).chunk(2, dim=1)
    bottled = model.encode(x)
    assert bottled.moments is not None
    assert_close(bottled.z, mean)
    assert_close((bottled.moments[1] / 2).exp(), nn.functional.softplus(scale) + 1e-4)
    assert_close(model.decode(mean), net["decoder"](mean))


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
def test_outputs_equal_a_net_of_that_layout(tmp_path: Path, where: str) -> None:
    net = filled(tools_net(SMALL))
    state = net.state_dict() if where == "new weight norm" else old_weight_norm(net.state_dict())
    torch.save(STATES[where](state), tmp_path / "model.ckpt")
    values = model_config(SMALL, inside=where == "in a whole model")
    (tmp_path / "model_config.json").write_text(json.dumps(values))
    config, weights = read("stable-audio-tools", tmp_path)
    assert config == SMALL
    model = Oobleck(SMALL).eval()
    model.load_state_dict(weights)
    assert_equal(model, net)


def test_the_published_checkpoint_has_these_keys() -> None:
    """Named and shaped as in the written-down layout of Stable Audio's checkpoints."""
    with torch.device("meta"):
        state = old_weight_norm(tools_net(oobleck()).state_dict())
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


def test_missing_and_left_over_weights_are_named(tmp_path: Path) -> None:
    state = old_weight_norm(tools_net(SMALL).state_dict())
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
