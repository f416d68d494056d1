"""Mimi <-> transformers' `MimiModel`, weight for weight.

theirs = MimiModel.from_pretrained(...)
config = config_from_transformers(theirs.config.to_dict())
model = Mimi(config)
model.load_state_dict(weights_from_transformers(theirs.state_dict(), config))

A checkpoint names its weights flatly (`encoder.layers.0...`, `encoder_transformer...`); inside newer transformers they
are in two halves (`encoder.encoder_seanet.layers.0...`, `encoder.encoder_transformer...`). Both are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from audiovae.bottlenecks.codebook import LEAST_COUNT
from audiovae.bottlenecks.rvq import RVQConfig
from audiovae.config import parse
from audiovae.errors import ConfigError
from audiovae.interop.keymap import rename
from audiovae.models.mimi import Mimi, MimiConfig
from audiovae.nn.seanet import SeanetConfig
from audiovae.nn.transformer import TransformerConfig

HALVES = (  # in a checkpoint, in the halves of a model
    ("encoder.layers.", "encoder.encoder_seanet.layers."),
    ("encoder_transformer.", "encoder.encoder_transformer."),
    ("downsample.", "encoder.downsample."),
    ("upsample.", "decoder.upsample."),
    ("decoder_transformer.", "decoder.decoder_transformer."),
    ("decoder.layers.", "decoder.decoder_seanet.layers."),
)

# theirs, ours
CONV = (("conv.weight", "conv.weight"), ("conv.bias", "conv.bias"))
UNIT = (("block.1", "conv"), ("block.3", "project"), ("shortcut", "shortcut"))
LAYER = (
    ("input_layernorm.weight", "attention_norm.weight"),
    ("input_layernorm.bias", "attention_norm.bias"),
    ("self_attn.q_proj.weight", "attention.query.weight"),
    ("self_attn.k_proj.weight", "attention.key.weight"),
    ("self_attn.v_proj.weight", "attention.value.weight"),
    ("self_attn.o_proj.weight", "attention.output.weight"),
    ("self_attn_layer_scale.scale", "attention_scale.scale"),
    ("post_attention_layernorm.weight", "mlp_norm.weight"),
    ("post_attention_layernorm.bias", "mlp_norm.bias"),
    ("mlp.fc1.weight", "expand.weight"),
    ("mlp.fc2.weight", "project.weight"),
    ("mlp_layer_scale.scale", "mlp_scale.scale"),
)
PROJECTIONS = (("input_proj.weight", "input.weight"), ("output_proj.weight", "output.weight"))
CODEBOOK = (("embed_sum", "sums"), ("cluster_usage", "counts"), ("initialized", "initialised"))

FIXED = {  # what ours cannot have otherwise, and what is meant where a config does not say
    "use_causal_conv": True,
    "trim_right_ratio": 1.0,
    "hidden_act": "gelu",
    "norm_eps": 1e-5,
    "attention_bias": False,
}


def weights_from_transformers(state: Mapping[str, Tensor], config: MimiConfig) -> dict[str, Tensor]:
    """Rename a `MimiModel`'s weights, of a checkpoint or of its halves, to ours.

    Raises CheckpointError for a key or shape that does not belong to a net of this config.
    """
    flat = {_respell(key, [(half, own) for own, half in HALVES]): w for key, w in state.items()}
    ours = rename(flat, dict(_names(config)), _shapes(config))
    for name in [name for name in ours if name.endswith(".sums")]:
        book = name.removesuffix("sums")
        counts = ours[book + "counts"].clamp(min=LEAST_COUNT)[:, None]
        ours[book + "vectors"] = ours[name] / counts
    return ours


def weights_to_transformers(
    state: Mapping[str, Tensor], config: MimiConfig, *, halves: bool = False
) -> dict[str, Tensor]:
    """Rename our weights to those of a `MimiModel`'s checkpoint; `halves`: to those of the model itself.

    Raises CheckpointError for a key or shape that does not belong to a net of this config.
    """
    ours = {ours: theirs for theirs, ours in _names(config)}
    vectors = {
        name.replace(".sums", ".vectors"): theirs.replace("embed_sum", "embed")
        for name, theirs in ours.items()
        if name.endswith(".sums")
    }
    names, shapes = ours | vectors, _shapes(config)
    flat = rename(state, names, {theirs: shapes[name] for name, theirs in names.items()})
    for (
        embed
    ) in vectors.values():  # theirs is always sum / usage; a code that never was chosen has neither
        book = embed.removesuffix("embed")
        vector, usage = flat.pop(embed), flat[book + "cluster_usage"]
        known = (usage > LEAST_COUNT)[:, None]
        flat[book + "embed_sum"] = torch.where(
            known, flat[book + "embed_sum"], vector * LEAST_COUNT
        )
        flat[book + "cluster_usage"] = usage.clamp(min=LEAST_COUNT)
    return {_respell(key, HALVES): w for key, w in flat.items()} if halves else flat


def config_from_transformers(values: Mapping[str, Any]) -> MimiConfig:
    """The config of the same net.

    `values` is a `MimiConfig` of transformers as a dict; raises ConfigError if it is none, or of a net that ours cannot be.
    """
    try:
        config: MimiConfig = parse(MimiConfig, _fields(values))
    except KeyError as error:
        raise ConfigError(f"not a config of transformers' MimiModel: it lacks {error}") from None
    frame_rate = values.get("frame_rate") or values.get("_frame_rate") or config.frame_rate
    wanted = FIXED | {
        "codebook_dim": values["vector_quantization_hidden_dimension"],
        "num_key_value_heads": config.transformer.heads,
        "head_dim": config.transformer.width // config.transformer.heads,
        "upsample_groups": config.transformer.width,
    }
    for key, want in wanted.items():
        if values.get(key) not in (None, want):
            raise ConfigError(f"{key} must be {want} for a Mimi of ours, got {values[key]}")
    if abs(frame_rate - config.frame_rate) > 1e-6:
        raise ConfigError(
            f"frame_rate must be {config.frame_rate:g}, the sample rate by the hop, got {frame_rate}"
        )
    return config


def config_to_transformers(config: MimiConfig) -> dict[str, Any]:
    """The arguments of transformers' `MimiConfig` of the same net.

    Raises ConfigError where it has none.
    """
    seanet, transformer, bottleneck = config.seanet, config.transformer, config.bottleneck
    if seanet.norm != "none" or transformer.bias or transformer.layer_scale is None:
        raise ConfigError(
            "transformers' Mimi has no norm in its seanet, no bias and a layer_scale in its "
            f"transformer, got norm {seanet.norm}, bias {transformer.bias}, "
            f"layer_scale {transformer.layer_scale}"
        )
    if bottleneck.update != "ema" or bottleneck.codebook_dim == bottleneck.latent_dim:
        raise ConfigError(
            "transformers' Mimi needs update ema and a codebook_dim other than latent_dim, or none, "
            f"got {bottleneck.update} and {bottleneck.codebook_dim}"
        )
    codebook_dim = bottleneck.codebook_dim or bottleneck.latent_dim
    return FIXED | {
        "sampling_rate": config.sample_rate,
        "audio_channels": config.channels,
        "num_filters": seanet.width,
        "upsampling_ratios": list(seanet.strides[::-1]),
        "kernel_size": seanet.kernel_size,
        "last_kernel_size": seanet.last_kernel_size,
        "residual_kernel_size": seanet.residual_kernel_size,
        "num_residual_layers": seanet.residual_units,
        "dilation_growth_rate": seanet.dilation_growth,
        "compress": seanet.compress,
        "use_conv_shortcut": seanet.shortcut == "conv",
        "pad_mode": seanet.padding,
        "hidden_size": transformer.width,
        "num_hidden_layers": transformer.layers,
        "num_attention_heads": transformer.heads,
        "num_key_value_heads": transformer.heads,
        "intermediate_size": transformer.hidden,
        "sliding_window": transformer.window,
        "layer_scale_initial_scale": transformer.layer_scale,
        "rope_parameters": {"rope_type": "default", "rope_theta": transformer.rope_base},
        "upsample_groups": transformer.width,
        "codebook_size": bottleneck.codebook_size,
        "codebook_dim": codebook_dim,
        "vector_quantization_hidden_dimension": codebook_dim,
        "num_quantizers": bottleneck.n_codebooks,
        "num_semantic_quantizers": config.n_semantic,
    }


def _fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a config of theirs says, in our fields."""
    rope = values.get("rope_parameters") or {}
    if rope.get("rope_type", "default") != "default":
        raise ConfigError(f"rope_type must be default for a Mimi of ours, got {rope['rope_type']}")
    width, codebook_dim = values["hidden_size"], values["vector_quantization_hidden_dimension"]
    return {
        "sample_rate": values["sampling_rate"],
        "channels": values["audio_channels"],
        "seanet": SeanetConfig(
            width=values["num_filters"],
            strides=tuple(values["upsampling_ratios"][::-1]),
            kernel_size=values["kernel_size"],
            last_kernel_size=values["last_kernel_size"],
            residual_kernel_size=values["residual_kernel_size"],
            residual_units=values["num_residual_layers"],
            dilation_growth=values["dilation_growth_rate"],
            compress=values["compress"],
            shortcut="conv" if values["use_conv_shortcut"] else "identity",
            padding=values["pad_mode"],
            lstm_layers=0,
            norm="none",
        ),
        "transformer": TransformerConfig(
            width=width,
            layers=values["num_hidden_layers"],
            heads=values["num_attention_heads"],
            hidden=values["intermediate_size"],
            window=values["sliding_window"],
            layer_scale=values["layer_scale_initial_scale"],
            rope_base=rope.get("rope_theta", values.get("rope_theta", 10_000.0)),
            bias=False,
        ),
        "bottleneck": RVQConfig(
            latent_dim=width,
            codebook_size=values["codebook_size"],
            codebook_dim=None if codebook_dim == width else codebook_dim,
            n_codebooks=values["num_quantizers"],
            shared_projection=True,
        ),
        "n_semantic": values["num_semantic_quantizers"],
    }


def _names(config: MimiConfig) -> Iterator[tuple[str, str]]:
    """The name of everything that is stored: theirs (flat), ours."""
    units, stages = config.seanet.residual_units, len(config.seanet.strides)
    per_stage = units + 2  # with an ELU and the convolution that resamples, all in one list
    for half, resample, unit in (("encoder", units + 1, 0), ("decoder", 1, 2)):
        yield from _each(f"{half}.layers.0", f"{half}.first", CONV)
        for i in range(stages):
            theirs, ours = 1 + i * per_stage, f"{half}.stages.{i}"
            yield from _each(f"{half}.layers.{theirs + resample}", f"{ours}.resample", CONV)
            for j in range(units):
                for block, name in UNIT if config.seanet.shortcut == "conv" else UNIT[:2]:
                    numbered = f"{half}.layers.{theirs + unit + j}.{block}"
                    yield from _each(numbered, f"{ours}.units.{j}.{name}", CONV)
        yield from _each(f"{half}.layers.{2 + stages * per_stage}", f"{half}.last", CONV)
        for i in range(config.transformer.layers):
            layer = f"{half}_transformer.layers.{i}"
            yield from _each(layer, layer, LAYER)
    yield from _each("downsample", "down", CONV[:1])
    yield from _each("upsample", "up", CONV[:1])
    n_acoustic = config.bottleneck.n_codebooks - config.n_semantic
    for half, count in (("semantic", config.n_semantic), ("acoustic", n_acoustic)):
        quantizer, ours = f"quantizer.{half}_residual_vector_quantizer", f"bottleneck.{half}"
        if config.bottleneck.codebook_dim is not None:
            yield from _each(quantizer, ours, PROJECTIONS)
        for i in range(count):
            yield from _each(
                f"{quantizer}.layers.{i}.codebook", f"{ours}.layers.{i}.codebook", CODEBOOK
            )


def _each(
    theirs: str, ours: str, parameters: tuple[tuple[str, str], ...]
) -> Iterator[tuple[str, str]]:
    """The names of a module's parameters."""
    for their_parameter, our_parameter in parameters:
        yield f"{theirs}.{their_parameter}", f"{ours}.{our_parameter}"


def _respell(key: str, prefixes: Iterable[tuple[str, str]]) -> str:
    for old, new in prefixes:
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key


def _shapes(config: MimiConfig) -> dict[str, tuple[int, ...]]:
    """The shape of each of our parameters and buffers, without allocating them."""
    with torch.device("meta"):
        return {name: tuple(w.shape) for name, w in Mimi(config).state_dict().items()}
