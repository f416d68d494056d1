"""Parity with transformers' MimiModel, there and back, and the strictness of the table."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from audiovae.bottlenecks.rvq import RVQ, RVQConfig
from audiovae.config import read_json
from audiovae.errors import CheckpointError, ConfigError
from audiovae.interop import formats
from audiovae.interop import mimi as interop
from audiovae.models.mimi import Mimi, MimiConfig, mimi
from audiovae.nn.seanet import SeanetConfig
from audiovae.nn.transformer import TransformerConfig

os.environ.setdefault("HF_HUB_OFFLINE", "1")

SMALL = MimiConfig(
    channels=2,
    seanet=SeanetConfig(
        width=3,
        strides=(3, 2, 5),
        kernel_size=5,
        last_kernel_size=3,
        residual_units=2,
        dilation_growth=3,
        shortcut="conv",
        lstm_layers=0,
        norm="none",
        padding="constant",
    ),
    transformer=TransformerConfig(
        width=18, layers=2, heads=3, hidden=22, window=5, layer_scale=0.1, bias=False, rope_base=50
    ),
    bottleneck=RVQConfig(
        latent_dim=18, codebook_size=16, codebook_dim=5, n_codebooks=5, shared_projection=True
    ),
    n_semantic=2,
)
BARE = SMALL.model_copy(  # no projections, no convolution beside the residual units
    update={
        "channels": 1,
        "seanet": SMALL.seanet.model_copy(
            update={"shortcut": "identity", "residual_units": 1, "padding": "replicate"}
        ),
        "bottleneck": SMALL.bottleneck.model_copy(update={"codebook_dim": None}),
        "n_semantic": 1,
    }
)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def peer_of(config: MimiConfig, seed: int = 0) -> Any:
    """transformers' net of this config, everything that is stored filled with distinct random values."""
    from transformers import MimiConfig as TheirConfig
    from transformers import MimiModel

    peer = MimiModel(TheirConfig(**interop.config_to_transformers(config))).eval()
    source = generator(seed)
    with torch.no_grad():
        for name, weight in peer.state_dict().items():
            if name.endswith("cluster_usage"):
                weight.uniform_(0.8, 1.25, generator=source)
            elif name.endswith("embed_sum"):
                weight.normal_(0.0, 1.0, generator=source)
            elif name.endswith("initialized"):
                weight.fill_(1.0)
            elif "norm.weight" in name or name.endswith("scale"):
                weight.uniform_(0.5, 1.5, generator=source)
            else:
                spread = 0.05 if weight.ndim == 1 else weight[0].numel() ** -0.5
                weight.normal_(0.0, spread, generator=source)
    return peer


def ours_of(peer: Any, config: MimiConfig) -> Mimi:
    with torch.device("meta"):
        model = Mimi(config).eval()
    weights = interop.weights_from_transformers(peer.state_dict(), config)
    model.load_state_dict(weights, assign=True)
    return model


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    """The issue's bar: max|a - b| <= 1e-5 max|b|, on outputs that are not almost constant."""
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.01
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def assert_codes_agree(half: RVQ, h: Tensor, ours: Tensor, theirs: Tensor) -> None:
    """Equal wherever the levels before agree and the two nearest codes are not almost equally near."""
    rows = h if half.input is None else half.input(h)
    residual, agree = rows.mT.double(), torch.ones_like(theirs[:, 0], dtype=torch.bool)
    clearly = []
    for level, layer in enumerate(half.layers):
        vectors = layer.codebook.vectors.double()
        two = torch.cdist(residual, vectors).topk(2, largest=False).values
        clear = (two[..., 1] - two[..., 0]) / two[..., 1] > 1e-4
        assert torch.equal(ours[:, level][agree & clear], theirs[:, level][agree & clear])
        clearly.append(clear.float().mean())
        agree = agree & (ours[:, level] == theirs[:, level])
        residual = residual - vectors[theirs[:, level]]
    assert torch.stack(clearly).mean() > 0.9  # else little was compared


def assert_both_halves_agree(model: Mimi, h: Tensor, ours: Tensor, theirs: Tensor) -> None:
    n = model.config.n_semantic
    assert ours.shape == theirs.shape
    assert_codes_agree(model.bottleneck.semantic, h, ours[:, :n], theirs[:, :n])
    assert_codes_agree(model.bottleneck.acoustic, h, ours[:, n:], theirs[:, n:])


def assert_most_codes_used(codes: Tensor, model: Mimi) -> None:
    for chosen, size in zip(codes.unbind(1), model.codebook_sizes[0], strict=True):
        assert len(chosen.unique()) > size / 2


def features(model: Mimi, x: Tensor) -> Tensor:
    """What the quantizers are given."""
    return model.down(model.encoder_transformer(model.encoder(x).mT).mT)


@torch.inference_mode()
def assert_outputs_equal(config: MimiConfig, samples: int, model: Mimi, peer: Any) -> None:
    x = torch.randn(1, config.channels, samples, generator=generator(1))
    bottled = model.encode(x)
    h = peer.encoder(x).latents
    assert_close(features(model, x), h)
    codes = peer.encode(x).audio_codes
    assert_both_halves_agree(model, h, bottled.codes[0], codes)
    assert_close(model.from_codes([codes]), peer.quantizer.decode(codes))
    assert_close(model.decode([codes]), peer.decode(codes).audio_values)


@pytest.mark.parametrize("config", [SMALL, BARE], ids=["small", "bare"])
@pytest.mark.parametrize("samples", [60 * 60, 60 * 30 + 1, 60 * 9 + 31, 44])
def test_outputs_equal_transformers_mimi(config: MimiConfig, samples: int) -> None:
    peer = peer_of(config)
    assert_outputs_equal(config, samples, ours_of(peer, config), peer)


@pytest.mark.parametrize("config", [SMALL, BARE], ids=["small", "bare"])
@torch.inference_mode()
def test_codes_equal_transformers_mimi(config: MimiConfig) -> None:
    peer = peer_of(config)
    model = ours_of(peer, config)
    x = 2 * torch.randn(2, config.channels, 60 * 150 + 7, generator=generator(1))
    h, theirs, ours = peer.encoder(x).latents, peer.encode(x).audio_codes, model.encode(x).codes[0]
    assert_both_halves_agree(model, h, ours, theirs)
    assert_most_codes_used(theirs, model)


@torch.inference_mode()
def test_any_first_codebooks_decode_as_in_transformers() -> None:
    peer = peer_of(SMALL)
    model = ours_of(peer, SMALL)
    codes = torch.randint(16, (2, 5, 12), generator=generator(0))
    for count in (2, 3, 5):
        assert_close(model.decode([codes[:, :count]]), peer.decode(codes[:, :count]).audio_values)


@torch.inference_mode()
def test_everything_equals_transformers_mimi_at_the_published_size() -> None:
    config = mimi()
    peer = peer_of(config)
    model = ours_of(peer, config)
    weights = sum(p.numel() for p in peer.parameters())
    assert sum(p.numel() for p in model.parameters()) == weights
    assert_outputs_equal(config, 5 * 1920 + 1001, model, peer)


@pytest.mark.slow
@torch.inference_mode()
def test_codes_equal_transformers_mimi_at_the_published_size() -> None:
    """As many rows as make more than half of the 2048 codes used, long enough that codes of all norms are."""
    config = mimi()
    peer = peer_of(config)
    model = ours_of(peer, config)
    h = 4.6 * torch.randn(1, 512, 3000, generator=generator(2))
    theirs = peer.quantizer.encode(h).transpose(0, 1)
    ours = model.bottleneck(h, sample=False).codes[0]
    assert_both_halves_agree(model, h, ours, theirs)
    assert_most_codes_used(theirs, model)


def test_default_config_is_the_published_one() -> None:
    from transformers import MimiConfig as TheirConfig

    assert interop.config_from_transformers(TheirConfig().to_dict()) == mimi()


def test_configs_go_there_and_back() -> None:
    for config in (SMALL, BARE, mimi(0), mimi()):
        assert interop.config_from_transformers(interop.config_to_transformers(config)) == config


def test_an_older_config_is_read() -> None:
    """As the published checkpoint has it."""
    values = interop.config_to_transformers(mimi())
    del values["rope_parameters"]
    older = {"rope_theta": 10_000.0, "frame_rate": 12.5, "head_dim": 64, "model_type": "mimi"}
    assert interop.config_from_transformers(values | older) == mimi()


def test_a_saved_checkpoint_is_read(tmp_path: Path) -> None:
    peer = peer_of(SMALL)
    peer.save_pretrained(tmp_path)
    config = interop.config_from_transformers(read_json(tmp_path / "config.json"))
    assert config == SMALL
    state = load_file(tmp_path / "model.safetensors")
    read_config, read_weights = formats.read("transformers", tmp_path)
    assert read_config == config
    assert "encoder_transformer.layers.0.mlp.fc1.weight" in state
    flat, halves = (
        interop.weights_from_transformers(s, config) for s in (state, peer.state_dict())
    )
    assert flat.keys() == halves.keys() == Mimi(config).state_dict().keys()
    for weights in (halves, read_weights):
        assert all(torch.equal(flat[name], weights[name]) for name in flat)


def test_transformers_loads_what_we_export(tmp_path: Path) -> None:
    from transformers import MimiModel

    torch.manual_seed(0)
    model = Mimi(SMALL).eval()
    book = model.bottleneck.acoustic.layers[1].codebook
    book.counts[3:5] = 0.0  # codes that were never chosen have a place all the same
    for name, content in formats.written("transformers", model).items():
        (tmp_path / name).write_bytes(content)
    peer = MimiModel.from_pretrained(tmp_path).eval()
    with torch.inference_mode():
        theirs = peer.quantizer.acoustic_residual_vector_quantizer.layers[1].codebook.embed
        torch.testing.assert_close(theirs, book.vectors, rtol=1e-6, atol=0)
    assert_outputs_equal(SMALL, 60 * 20 + 13, model, peer)
    halves = interop.weights_to_transformers(model.state_dict(), SMALL, halves=True)
    assert halves.keys() == peer.state_dict().keys()


def test_there_and_back_is_the_same() -> None:
    ours = ours_of(peer_of(SMALL), SMALL).state_dict()
    for halves in (False, True):
        theirs = interop.weights_to_transformers(ours, SMALL, halves=halves)
        back = interop.weights_from_transformers(theirs, SMALL)
        assert back.keys() == ours.keys()
        assert all(torch.equal(back[name], ours[name]) for name in ours)


def test_missing_left_over_and_misshapen_weights_are_named() -> None:
    state = interop.weights_to_transformers(Mimi(SMALL).state_dict(), SMALL)
    lacking = {k: w for k, w in state.items() if k != "downsample.conv.weight"}
    with pytest.raises(CheckpointError, match=r"lack: downsample\.conv\.weight;"):
        interop.weights_from_transformers(lacking, SMALL)
    with pytest.raises(CheckpointError, match="beside what is known: extra"):
        interop.weights_from_transformers(state | {"extra": torch.zeros(1)}, SMALL)
    name = "quantizer.semantic_residual_vector_quantizer.layers.0.codebook.embed_sum"
    with pytest.raises(CheckpointError, match=r"embed_sum \(8, 5\) instead of \(16, 5\)"):
        interop.weights_from_transformers(state | {name: torch.zeros(8, 5)}, SMALL)
    ours = Mimi(SMALL).state_dict()
    del ours["bottleneck.acoustic.layers.0.codebook.vectors"]
    with pytest.raises(CheckpointError, match=r"lack: bottleneck\.acoustic\.layers\.0\.codebook"):
        interop.weights_to_transformers(ours, SMALL)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"use_causal_conv": False}, "use_causal_conv must be True .* got False"),
        ({"upsample_groups": 1}, "upsample_groups must be 18 .* got 1"),
        ({"num_key_value_heads": 1}, "num_key_value_heads must be 3 .* got 1"),
        ({"codebook_dim": 6}, "codebook_dim must be 5 .* got 6"),
        ({"frame_rate": 200.0}, "frame_rate must be 400, .* got 200"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type must be default .* got yarn"),
    ],
)
def test_configs_that_ours_cannot_be_are_refused(changes: dict[str, Any], match: str) -> None:
    values = interop.config_to_transformers(SMALL)
    with pytest.raises(ConfigError, match=match):
        interop.config_from_transformers(values | changes)


def test_configs_without_a_counterpart_are_refused() -> None:
    normed = SMALL.seanet.model_copy(update={"norm": "weight"})
    with pytest.raises(ConfigError, match=r"no norm in its seanet, .* got norm weight"):
        interop.config_to_transformers(SMALL.model_copy(update={"seanet": normed}))
    learned = SMALL.bottleneck.model_copy(update={"update": "gradient"})
    with pytest.raises(ConfigError, match=r"needs update ema .* got gradient and 5"):
        interop.config_to_transformers(SMALL.model_copy(update={"bottleneck": learned}))
    values = interop.config_to_transformers(SMALL)
    del values["num_filters"]
    with pytest.raises(ConfigError, match=r"MimiModel: it lacks 'num_filters'"):
        interop.config_from_transformers(values)
