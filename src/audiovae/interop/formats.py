"""The formats of other toolkits: where their files keep the config and the weights, and which nets are known in them.

Reading runs no code: pickled files go through `torch.load(weights_only=True)`, and one that needs more is refused.
A net that becomes known is one `Net` in the table at the end.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from audiovae.config import read_json
from audiovae.errors import CheckpointError, ConfigError, did_you_mean
from audiovae.interop import dac, encodec, mimi, oobleck
from audiovae.models import Autoencoder, ModelConfig


class Net(NamedTuple):
    """One net of another toolkit and its kind here.  Weights go by name, configs are theirs as a dict."""

    kind: str  # of our config
    stamp: Mapping[str, Any]  # what their config says of itself; its first entry tells the net
    config_from: Callable[[Mapping[str, Any]], ModelConfig]
    weights_from: Callable[[Mapping[str, Tensor], Any], dict[str, Tensor]]
    config_to: Callable[[Any], dict[str, Any]] | None = None  # both None: only read
    weights_to: Callable[[Mapping[str, Tensor], Any], dict[str, Tensor]] | None = None


class Format(NamedTuple):
    """Where one toolkit's files keep things."""

    weights: tuple[str, ...]  # names in a folder, by preference; the first one is written
    nets: tuple[Net, ...]
    config: str | None = None  # beside the weights; None: the checkpoint holds it
    unpack: Callable[[Any], tuple[Any, Any]] | None = None  # such a checkpoint -> config, weights


def read(format: str, path: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Read a net of another toolkit: a folder in its layout, or one checkpoint file.  -> our config, our weights.

    Raises ConfigError for a format or net that is not known, CheckpointError for files that are missing, damaged,
    need more than `weights_only`, or whose weights are not those of their config.
    """
    layout = _format(format)
    file = _weights_file(format, layout, path)
    if layout.config is not None and not (file.parent / layout.config).is_file():
        raise CheckpointError(f"there is no {layout.config} beside {file}; it says what net it is")
    payload = _payload(file)
    if layout.config is not None:
        values: Any = read_json(file.parent / layout.config)
        state = payload.get("state_dict", payload)
    else:
        values, state = _unpacked(format, layout, file, payload)
    if not isinstance(state, Mapping) or not isinstance(values, Mapping):
        raise CheckpointError(
            f"{file} is not a checkpoint of {format}: it holds no table of weights"
        )
    net = _net(format, layout, values)
    if strange := [name for name, weight in state.items() if not isinstance(weight, Tensor)]:
        raise CheckpointError(f"{file} has no weights under {', '.join(map(str, strange[:3]))}")
    config = net.config_from(values)
    weights = net.weights_from(state, config)
    return config, {k: w.float() if w.is_floating_point() else w for k, w in weights.items()}


def written(format: str, model: Autoencoder) -> dict[str, bytes]:
    """The files of a folder that the other toolkit's `from_pretrained` reads, by name.

    Raises ConfigError for a format that is not known or not written, and for a model that it has no net for.
    """
    layout = _format(format)
    kind = model.config.model_dump()["kind"]
    net = next((n for n in layout.nets if n.kind == kind and n.config_to is not None), None)
    if net is None or net.config_to is None or net.weights_to is None or layout.config is None:
        kinds = [n.kind for n in layout.nets if n.config_to is not None]
        known = f"it has one of {', '.join(kinds)}" if kinds else "it is only read"
        raise ConfigError(f"{format} has no counterpart of {kind}; {known}")
    values = dict(net.stamp) | net.config_to(model.config)
    tensors = {
        name: weight.detach().cpu().contiguous().clone()
        for name, weight in net.weights_to(model.state_dict(), model.config).items()
    }
    return {
        layout.config: (json.dumps(values, indent=2, sort_keys=True) + "\n").encode(),
        layout.weights[0]: safetensors.torch.save(tensors, metadata={"format": "pt"}),
    }


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise ConfigError(f"'{name}' is not a format{did_you_mean(name, FORMATS)}")
    return FORMATS[name]


def _weights_file(format: str, layout: Format, path: Path) -> Path:
    """The file with the weights that a path means."""
    if not path.exists():
        raise CheckpointError(f"there is no {path}; a folder or a checkpoint file is expected")
    if path.is_file():
        return path
    for name in layout.weights:
        if (path / name).is_file():
            return path / name
    names = " or ".join(layout.weights)
    raise CheckpointError(
        f"{path} holds no weights of {format}: {names} is expected, or name the file"
    )


def _payload(file: Path) -> dict[str, Any]:
    """What a checkpoint file holds, read without running anything of it."""
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load_file(file)
        payload = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{file} needs more than tensors, numbers and text ({_reason(error)}): loading it could run code, so it is "
            "refused; save its state_dict alone"
        ) from None
    except (safetensors.SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(f"{file} is not a checkpoint of weights: {_reason(error)}") from None
    if not isinstance(payload, Mapping):
        raise CheckpointError(
            f"{file} holds {type(payload).__name__}, a table of weights is expected"
        )
    return dict(payload)


def _reason(error: Exception) -> str:
    """What torch says in many lines, in one."""
    text = str(error)
    found = re.search(r"Unsupported [\w ]+:? ?(GLOBAL )?[\w.]+", text)
    return found.group() if found else (text.splitlines() or [type(error).__name__])[0]


def _unpacked(format: str, layout: Format, file: Path, payload: Any) -> tuple[Any, Any]:
    """The config and the weights in a checkpoint that holds both."""
    try:
        return layout.unpack(payload) if layout.unpack is not None else (payload, payload)
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{file} is not a checkpoint of {format}: it lacks {error}") from None


def _net(format: str, layout: Format, values: Mapping[str, Any]) -> Net:
    """The net that a config names."""
    if len(layout.nets) == 1 and not layout.nets[0].stamp:
        return layout.nets[0]
    for net in layout.nets:
        key = next(iter(net.stamp))
        if values.get(key) == net.stamp[key]:
            return net
    known = ", ".join(str(net.stamp[key]) for net in layout.nets)
    raise ConfigError(
        f"{layout.config} has {key} {values.get(key)!r}; known in {format} are {known}"
    )


FORMATS: dict[str, Format] = {
    "diffusers": Format(
        weights=("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"),
        config="config.json",
        nets=(
            Net(
                "oobleck",
                {"_class_name": "AutoencoderOobleck"},
                oobleck.config_from_diffusers,
                oobleck.weights_from_diffusers,
                oobleck.config_to_diffusers,
                oobleck.weights_to_diffusers,
            ),
        ),
    ),
    "transformers": Format(
        weights=("model.safetensors", "pytorch_model.bin"),
        config="config.json",
        nets=(
            Net(
                "dac",
                {"model_type": "dac", "architectures": ["DacModel"]},
                dac.config_from_transformers,
                dac.weights_from_transformers,
                dac.config_to_transformers,
                dac.weights_to_transformers,
            ),
            Net(
                "encodec",
                {"model_type": "encodec", "architectures": ["EncodecModel"]},
                encodec.config_from_transformers,
                encodec.weights_from_transformers,
                encodec.config_to_transformers,
                encodec.weights_to_transformers,
            ),
            Net(
                "mimi",
                {"model_type": "mimi", "architectures": ["MimiModel"]},
                mimi.config_from_transformers,
                mimi.weights_from_transformers,
                mimi.config_to_transformers,
                mimi.weights_to_transformers,
            ),
        ),
    ),
    "stable-audio-tools": Format(
        weights=("model.safetensors", "model.ckpt"),
        config="model_config.json",
        nets=(
            Net(
                "oobleck",
                {},
                oobleck.config_from_stable_audio_tools,
                oobleck.weights_from_stable_audio_tools,
            ),
        ),
    ),
    "dac": Format(
        weights=("weights.pth",),
        unpack=lambda payload: (payload["metadata"]["kwargs"], payload["state_dict"]),
        nets=(Net("dac", {}, dac.config_from_original, dac.weights_from_original),),
    ),
    "encodec": Format(  # the weights alone, or as AudioCraft keeps them
        weights=("encodec.th",),
        unpack=lambda payload: (payload.get("best_state", payload),) * 2,
        nets=(Net("encodec", {}, encodec.config_from_original, encodec.weights_from_original),),
    ),
}
