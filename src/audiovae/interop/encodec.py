"""EnCodec <-> transformers' `EncodecModel` and the original `encodec` package, weight for weight.

theirs = EncodecModel.from_pretrained(...)
config = config_from_transformers(theirs.config.to_dict())
model = Encodec(config)
model.load_state_dict(weights_from_transformers(theirs.state_dict(), config))

The original's checkpoints (.th) are bare tables of weights, AudioCraft's hold such a table as "best_state". They do not
say which net they are: `config_from_original` knows the two published ones, any other needs its config.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from audiovae.bottlenecks import RVQConfig
from audiovae.config import parse
from audiovae.errors import ConfigError
from audiovae.interop.keymap import new_weight_norm, old_weight_norm, rename
from audiovae.models.encodec import Encodec, EncodecConfig, encodec_24k, encodec_48k

Parameters = tuple[tuple[str, str], ...]  # theirs, ours


class Layout(NamedTuple):
    """Where one of the two keeps things."""

    layers: str  # of the encoder and of the decoder, in one list with the ELUs
    conv: str  # in a convolution
    conv_norm: str
    transposed: str  # in a transposed one
    transposed_norm: str
    codebook: str


TRANSFORMERS = Layout("layers", "conv", "norm", "conv", "norm", "quantizer.layers.{k}.codebook")
ORIGINAL = Layout(
    layers="model",
    conv="conv.conv",
    conv_norm="conv.norm",
    transposed="convtr.convtr",
    transposed_norm="convtr.norm",
    codebook="quantizer.vq.layers.{k}._codebook",
)

PLAIN = (("weight", "weight"), ("bias", "bias"))
NORMED = (
    ("weight_g", "parametrizations.weight.original0"),
    ("weight_v", "parametrizations.weight.original1"),
    ("bias", "bias"),
)
UNIT = (("block.1", "conv"), ("block.3", "project"), ("shortcut", "shortcut"))
LSTM = ("weight_ih_l{i}", "weight_hh_l{i}", "bias_ih_l{i}", "bias_hh_l{i}")
CODEBOOK = (
    ("embed", "vectors"),
    ("embed_avg", "sums"),
    ("cluster_size", "counts"),
    ("inited", "initialised"),
)
NORMS = {"weight_norm": "weight", "time_group_norm": "group"}


def weights_from_transformers(
    state: Mapping[str, Tensor], config: EncodecConfig
) -> dict[str, Tensor]:
    """Rename an `EncodecModel`'s weights, in either spelling of weight norm, to ours.

    Raises CheckpointError for a key or shape that does not belong to a net of this config.
    """
    return rename(old_weight_norm(state), dict(_names(config, TRANSFORMERS)), _shapes(config))


def weights_to_transformers(
    state: Mapping[str, Tensor], config: EncodecConfig, *, parametrised: bool = False
) -> dict[str, Tensor]:
    """Rename our weights to an `EncodecModel`'s; `parametrised`: weight norm's new spelling, as inside a model.

    Raises CheckpointError for a key or shape that does not belong to a net of this config.
    """
    renamed = _to_theirs(state, config, TRANSFORMERS)
    return new_weight_norm(renamed) if parametrised else renamed


def weights_from_original(state: Mapping[str, Tensor], config: EncodecConfig) -> dict[str, Tensor]:
    """Rename the weights of `encodec`'s or AudioCraft's `EncodecModel` to ours.

    Raises CheckpointError for a key or shape that does not belong to a net of this config.
    """
    return rename(old_weight_norm(state), dict(_names(config, ORIGINAL)), _shapes(config))


def weights_to_original(state: Mapping[str, Tensor], config: EncodecConfig) -> dict[str, Tensor]:
    """Rename our weights to those of `encodec`'s `EncodecModel`.

    Raises CheckpointError for a key or shape that does not belong to a net of this config.
    """
    return _to_theirs(state, config, ORIGINAL)


def config_from_original(state: Mapping[str, Any]) -> EncodecConfig:
    """The published net that these weights of the original are meant for: its 48 kHz net alone has group norms.

    Whether they are its weights, `weights_from_original` finds out.
    """
    return encodec_48k() if "encoder.model.0.conv.norm.weight" in state else encodec_24k()


def config_from_transformers(values: Mapping[str, Any]) -> EncodecConfig:
    """The config of the same net.

    `values` is an `EncodecConfig` of transformers as a dict; raises ConfigError if it is none, or of a net that ours
    cannot be.
    """
    try:
        config: EncodecConfig = parse(EncodecConfig, _fields(values))
    except KeyError as error:
        raise ConfigError(f"not a config of transformers' EncodecModel: it lacks {error}") from None
    wanted = {"codebook_dim": config.bottleneck.latent_dim, "trim_right_ratio": 1.0}
    for key, want in wanted.items():
        if values.get(key) not in (None, want):
            raise ConfigError(f"{key} must be {want} for an EnCodec of ours, got {values[key]}")
    return config


def config_to_transformers(config: EncodecConfig) -> dict[str, Any]:
    """The arguments of transformers' `EncodecConfig` of the same net.

    Raises ConfigError where it has none.
    """
    seanet, bottleneck = config.seanet, config.bottleneck
    norms = {ours: theirs for theirs, ours in NORMS.items()}
    kept = config.codebooks_at(config.bandwidths[-1])
    for needed, met, got in (
        ("norm weight or group", seanet.norm in norms, seanet.norm),
        ("an LSTM", seanet.lstm_layers > 0, f"{seanet.lstm_layers} layers"),
        ("update ema", bottleneck.update == "ema", bottleneck.update),
        ("codebook_dim None", bottleneck.codebook_dim is None, bottleneck.codebook_dim),
        ("normalise False", not bottleneck.normalise, bottleneck.normalise),
        (
            "a codebook_size that is a power of two",
            bottleneck.codebook_size.bit_count() == 1,
            bottleneck.codebook_size,
        ),
        (
            f"bandwidths for all {bottleneck.n_codebooks} codebooks",
            kept == bottleneck.n_codebooks,
            f"them for {kept}",
        ),
    ):
        if not met:
            raise ConfigError(f"transformers' EncodecModel needs {needed}, got {got}")
    return {
        "target_bandwidths": list(config.bandwidths),
        "sampling_rate": config.sample_rate,
        "audio_channels": config.channels,
        "normalize": config.normalise,
        "chunk_length_s": config.segment_seconds,
        "overlap": None if config.segment_seconds is None else config.overlap,
        "hidden_size": bottleneck.latent_dim,
        "num_filters": seanet.width,
        "num_residual_layers": seanet.residual_units,
        "upsampling_ratios": list(seanet.strides[::-1]),
        "norm_type": norms[seanet.norm],
        "kernel_size": seanet.kernel_size,
        "last_kernel_size": seanet.last_kernel_size,
        "residual_kernel_size": seanet.residual_kernel_size,
        "dilation_growth_rate": seanet.dilation_growth,
        "use_causal_conv": seanet.causal,
        "pad_mode": seanet.padding,
        "compress": seanet.compress,
        "num_lstm_layers": seanet.lstm_layers,
        "trim_right_ratio": 1.0,
        "codebook_size": bottleneck.codebook_size,
        "codebook_dim": bottleneck.latent_dim,
        "use_conv_shortcut": seanet.shortcut == "conv",
    }


def _fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a config of theirs says, in our fields."""
    seanet = {
        "width": values["num_filters"],
        "strides": tuple(values["upsampling_ratios"][::-1]),
        "kernel_size": values["kernel_size"],
        "last_kernel_size": values["last_kernel_size"],
        "residual_kernel_size": values["residual_kernel_size"],
        "residual_units": values["num_residual_layers"],
        "dilation_growth": values["dilation_growth_rate"],
        "compress": values["compress"],
        "shortcut": "conv" if values["use_conv_shortcut"] else "identity",
        "lstm_layers": values["num_lstm_layers"],
        "causal": values["use_causal_conv"],
        "norm": NORMS.get(values["norm_type"], values["norm_type"]),
        "padding": values["pad_mode"],
    }
    fields = {
        "sample_rate": values["sampling_rate"],
        "channels": values["audio_channels"],
        "seanet": seanet,
        "bottleneck": RVQConfig(
            latent_dim=values["hidden_size"], codebook_size=values["codebook_size"]
        ),
        "bandwidths": tuple(values["target_bandwidths"]),
        "segment_seconds": values["chunk_length_s"],
        "normalise": values["normalize"],
    }
    if values["overlap"] is not None:
        fields["overlap"] = values["overlap"]
    net: EncodecConfig = parse(EncodecConfig, fields)  # but for its number of codebooks
    count = int(1000 * values["target_bandwidths"][-1] // net.codebook_rate)
    return fields | {"bottleneck": fields["bottleneck"].model_copy(update={"n_codebooks": count})}


def _to_theirs(
    state: Mapping[str, Tensor], config: EncodecConfig, layout: Layout
) -> dict[str, Tensor]:
    ours = {ours: theirs for theirs, ours in _names(config, layout)}
    return rename(state, ours, {ours[name]: shape for name, shape in _shapes(config).items()})


def _names(config: EncodecConfig, layout: Layout) -> Iterator[tuple[str, str]]:
    """The name of everything that is stored: theirs (old weight norm), ours."""
    seanet = config.seanet
    units, stages, remembers = seanet.residual_units, len(seanet.strides), seanet.lstm_layers > 0
    per_stage = units + 2  # with an ELU and the convolution that resamples
    for half, begin, resample, unit in (
        ("encoder", 1, units + 1, 0),
        ("decoder", 1 + remembers, 1, 2),
    ):
        layers, end = f"{half}.{layout.layers}", begin + stages * per_stage
        yield from _conv(config, layout, f"{layers}.0", f"{half}.first")
        if remembers:
            yield from _lstm(config, f"{layers}.{end if half == 'encoder' else 1}", half)
        for i in range(stages):
            number, stage = begin + i * per_stage, f"{half}.stages.{i}"
            yield from _conv(
                config,
                layout,
                f"{layers}.{number + resample}",
                f"{stage}.resample",
                transposed=half == "decoder",
            )
            for j in range(units):
                for theirs, ours in UNIT if seanet.shortcut == "conv" else UNIT[:2]:
                    block = f"{layers}.{number + unit + j}.{theirs}"
                    yield from _conv(config, layout, block, f"{stage}.units.{j}.{ours}")
        last = end + (2 if remembers and half == "encoder" else 1)
        yield from _conv(config, layout, f"{layers}.{last}", f"{half}.last")
    for k in range(config.bottleneck.n_codebooks):
        book = layout.codebook.format(k=k)
        yield from _each(book, f"bottleneck.layers.{k}.codebook", CODEBOOK)


def _conv(
    config: EncodecConfig, layout: Layout, theirs: str, ours: str, *, transposed: bool = False
) -> Iterator[tuple[str, str]]:
    """A convolution, with its norm."""
    conv, norm = layout.conv, layout.conv_norm
    if transposed:
        conv, norm = layout.transposed, layout.transposed_norm
    parameters = NORMED if config.seanet.norm == "weight" else PLAIN
    yield from _each(f"{theirs}.{conv}", f"{ours}.conv", parameters)
    if config.seanet.norm == "group":
        yield from _each(f"{theirs}.{norm}", f"{ours}.norm", PLAIN)


def _lstm(config: EncodecConfig, theirs: str, half: str) -> Iterator[tuple[str, str]]:
    for i in range(config.seanet.lstm_layers):
        names = tuple((name.format(i=i), name.format(i=i)) for name in LSTM)
        yield from _each(f"{theirs}.lstm", f"{half}.lstm.lstm", names)


def _each(theirs: str, ours: str, parameters: Parameters) -> Iterator[tuple[str, str]]:
    """The names of a module's parameters."""
    for their_parameter, our_parameter in parameters:
        yield f"{theirs}.{their_parameter}", f"{ours}.{our_parameter}"


def _shapes(config: EncodecConfig) -> dict[str, tuple[int, ...]]:
    """The shape of each of our parameters and buffers, without allocating them."""
    with torch.device("meta"):
        return {name: tuple(w.shape) for name, w in Encodec(config).state_dict().items()}
