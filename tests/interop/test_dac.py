"""Parity with transformers' DacModel and with descript-audio-codec, and the strictness of the tables."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from audiovae.bottlenecks import GaussianConfig
from audiovae.errors import CheckpointError, ConfigError
from audiovae.interop import dac as interop
from audiovae.models.dac import DAC, DACConfig, dac_16k, dac_24k, dac_44k, dac_bottleneck

Fill = Callable[..., nn.Module]

ODD = DACConfig(
    sample_rate=16_000,
    width=5,
    decoder_width=24,
    strides=(2, 5, 3),
    bottleneck=dac_bottleneck(40, n_codebooks=4, codebook_size=8, codebook_dim=3),
)
EVEN = DACConfig(
    sample_rate=8_000,
    width=7,
    decoder_width=12,
    strides=(4, 2),
    bottleneck=dac_bottleneck(28, n_codebooks=3, codebook_size=16, codebook_dim=5),
)
NARROW = EVEN.model_copy(update={"bottleneck": dac_bottleneck(6, 2, 8, 2)})  # descript's only


def from_transformers(config: DACConfig) -> nn.Module:
    from transformers import DacConfig, DacModel

    return DacModel(DacConfig(**interop.config_to_transformers(config)))


@pytest.fixture(scope="module")
def descript() -> Iterator[Callable[[DACConfig], nn.Module]]:
    """descript-audio-codec's net of a config.

    The package wants descript-audiotools and argbind, for things that the net does not do: stand-ins serve.
    """
    tools = MagicMock()
    tools.ml.BaseModel = type("BaseModel", (nn.Module,), {"INTERN": [], "EXTERN": []})
    stand_ins = {"audiotools": tools, "audiotools.ml": tools.ml, "audiotools.core": tools.core}
    stand_ins["argbind"] = MagicMock()
    with pytest.MonkeyPatch.context() as patch:
        for name, module in stand_ins.items():
            patch.setitem(sys.modules, name, module)
        from dac.model.dac import DAC as Original  # noqa: N811

        yield lambda config: Original(**interop.config_to_original(config))
    for name in [n for n in sys.modules if n == "dac" or n.startswith("dac.")]:
        del sys.modules[name]


def ours_of(weights: dict[str, Tensor], config: DACConfig) -> DAC:
    with torch.device("meta"):
        model = DAC(config).eval()
    model.load_state_dict(weights, assign=True)
    return model


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    """The issue's bar: max|a - b| <= 1e-5 max|b|, on outputs that are not almost constant."""
    assert theirs.std() > 0.01
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def margins(quantizer: nn.Module, h: Tensor) -> Tensor:
    """How much nearer each level's best code is than the second, relatively.  h [B, D, F] -> [B, K, F]."""
    found = []
    for level in quantizer.quantizers:
        rows = normalize(level.in_proj(h).mT, dim=-1)  # [B, F, d]
        distances = torch.cdist(rows, normalize(level.codebook.weight)[None])
        best, second = distances.topk(2, largest=False).values.unbind(-1)
        found.append((second - best) / second)
        h = h - level.out_proj(level.codebook(distances.argmin(-1)).mT)
    return torch.stack(found, dim=1)


def assert_codes_agree(ours: Tensor, theirs: Tensor, margin: Tensor) -> Tensor:
    """Codes [B, K, F] are equal wherever earlier levels agree and the margin says which is nearer; -> [B, F] all equal."""
    equal = ours == theirs
    earlier = torch.cat([torch.ones_like(equal[:, :1]), equal.cumprod(1).bool()[:, :-1]], dim=1)
    told = earlier & (margin > 1e-4)
    assert equal[told].all()
    assert told.float().mean() > 0.9
    return equal.all(1)


def varied(length: int) -> Tensor:
    """Sounds that use many codes: a tone that rises and swells, and noise that fades.  [2, 1, length]."""
    t = torch.linspace(0, 1, length)
    noise = torch.randn(length, generator=torch.Generator().manual_seed(1))
    return torch.stack([2 * t * torch.sin(1.5 * length * t**2), (1 - t) * noise])[:, None]


@torch.inference_mode()
def assert_outputs_equal(peer: nn.Module, model: DAC, frames: int) -> tuple[Tensor, int]:
    """-> the peer's codes, and how many samples it loses."""
    x = varied(frames * model.hop_length)
    h, bottled = peer.encoder(x), model.encode(x)
    assert_close(model.encoder(x), h)
    z, codes = peer.quantizer(h)[:2]
    same = assert_codes_agree(bottled.codes[0], codes, margins(peer.quantizer, h))
    assert_close(bottled.z.mT[same], z.mT[same])
    theirs = peer.decoder(z)
    ours = model.decode([codes], x.shape[-1])
    assert ours.shape == x.shape
    lost = x.shape[-1] - theirs.shape[-1]
    end = x.shape[-1] - (model.decoder_context.right * model.hop_length if lost else 0)
    assert_close(ours[..., :end], theirs[..., :end])
    assert theirs.std() < 0.8  # else the tanh would hide differences
    return codes, lost


def assert_used(codes: Tensor, size: int) -> None:
    """More than half of each codebook, else equal codes say little."""
    for level in codes.unbind(1):
        assert level.unique().numel() > size / 2


@pytest.mark.parametrize(("config", "lost"), [(ODD, 12), (EVEN, 0)], ids=["odd", "even"])
def test_outputs_equal_transformers_dac(fill: Fill, config: DACConfig, lost: int) -> None:
    peer = fill(from_transformers(config))
    model = ours_of(interop.weights_from_transformers(peer.state_dict(), config), config)
    codes, they_lose = assert_outputs_equal(peer, model, frames=200)
    assert_used(codes, config.bottleneck.codebook_size)
    assert they_lose == lost


@pytest.mark.parametrize("config", [ODD, EVEN, NARROW], ids=["odd", "even", "narrow"])
def test_outputs_equal_descript_audio_codec(
    fill: Fill, descript: Callable[[DACConfig], nn.Module], config: DACConfig
) -> None:
    peer = fill(descript(config))
    model = ours_of(interop.weights_from_original(peer.state_dict(), config), config)
    assert_used(assert_outputs_equal(peer, model, frames=200)[0], config.bottleneck.codebook_size)


@torch.inference_mode()
def assert_published(peer: nn.Module, model: DAC, frames: int) -> int:
    """The whole net on a few frames, and its codebooks on as many as use more than half of each."""
    _, lost = assert_outputs_equal(peer, model, frames)
    latent_dim = model.latent_dim
    h = torch.randn(1, latent_dim, 4000, generator=torch.Generator().manual_seed(2))
    z, codes = peer.quantizer(h)[:2]
    bottled = model.bottleneck(h, sample=False)
    same = assert_codes_agree(bottled.codes[0], codes, margins(peer.quantizer, h))
    assert_close(bottled.z.mT[same], z.mT[same])
    assert_used(codes, 1024)
    return lost


def test_outputs_equal_transformers_dac_at_the_published_size(fill: Fill) -> None:
    config = dac_44k()
    peer = fill(from_transformers(config), encoder=0.8)
    model = ours_of(interop.weights_from_transformers(peer.state_dict(), config), config)
    assert sum(p.numel() for p in model.parameters()) == 76_651_890
    assert assert_published(peer, model, frames=4) == 0


@pytest.mark.slow
@pytest.mark.parametrize("preset", [dac_24k, dac_16k])
def test_outputs_equal_descript_audio_codec_at_the_published_sizes(
    fill: Fill, descript: Callable[[DACConfig], nn.Module], preset: Callable[[], DACConfig]
) -> None:
    peer = fill(descript(preset()), encoder=0.8)
    model = ours_of(interop.weights_from_original(peer.state_dict(), preset()), preset())
    assert assert_published(peer, model, frames=14) == 8


@pytest.mark.parametrize(
    ("preset", "sample_rate", "strides", "n_codebooks"),
    [
        (dac_44k, 44_100, [2, 4, 8, 8], 9),
        (dac_24k, 24_000, [2, 4, 5, 8], 32),
        (dac_16k, 16_000, [2, 4, 5, 8], 12),
    ],
)
def test_presets_are_the_published_configs(
    preset: Callable[[], DACConfig], sample_rate: int, strides: list[int], n_codebooks: int
) -> None:
    """Both packages' defaults are the 44.1 kHz net; the others differ from it in three settings."""
    from transformers import DacConfig

    changed = {"sampling_rate": sample_rate, "downsampling_ratios": strides}
    published = DacConfig(**changed, n_codebooks=n_codebooks)
    assert interop.config_from_transformers(published.to_dict()) == preset()
    arguments = {"sample_rate": sample_rate, "encoder_rates": strides, "n_codebooks": n_codebooks}
    arguments["decoder_rates"] = strides[::-1]
    assert interop.config_from_original(arguments) == preset()


def test_both_spellings_of_weight_norm_and_folded_weights_are_read() -> None:
    ours = DAC(EVEN).state_dict()
    old = interop.weights_to_original(ours, EVEN)
    new = interop.weights_to_original(ours, EVEN, parametrised=True)
    assert "encoder.block.0.weight_g" in old
    assert "encoder.block.0.parametrizations.weight.original0" in new
    for theirs in (old, new):
        back = interop.weights_from_original(theirs, EVEN)
        assert back.keys() == ours.keys()
        assert all(torch.equal(back[name], ours[name]) for name in ours)
    folded = interop.weights_to_transformers(ours, EVEN)
    assert "encoder.conv1.weight" in folded and not [k for k in folded if k.endswith("_g")]
    again = interop.weights_to_transformers(interop.weights_from_transformers(folded, EVEN), EVEN)
    for name, weight in folded.items():
        torch.testing.assert_close(again[name], weight)


def test_a_filter_of_zeros_stays_one() -> None:
    folded = interop.weights_to_transformers(DAC(EVEN).state_dict(), EVEN)
    folded["encoder.conv1.weight"][2] = 0.0
    model = ours_of(interop.weights_from_transformers(folded, EVEN), EVEN)
    assert torch.equal(model.encoder.first.weight, folded["encoder.conv1.weight"])


def test_transformers_and_descript_load_what_we_export(
    fill: Fill, descript: Callable[[DACConfig], nn.Module]
) -> None:
    model = fill(DAC(ODD))
    weights = model.state_dict()
    peers = {
        from_transformers(ODD): interop.weights_to_transformers(weights, ODD),
        descript(ODD): interop.weights_to_original(weights, ODD),
    }
    for peer, exported in peers.items():
        peer.eval().load_state_dict(exported, strict=True)
        assert_outputs_equal(peer, model, frames=40)


def test_what_only_training_needs_is_not_exported() -> None:
    bottleneck = EVEN.bottleneck.model_copy(update={"revive_below": 0.1})
    config = EVEN.model_copy(update={"bottleneck": bottleneck})
    exported = interop.weights_to_transformers(DAC(config).state_dict(), config)
    assert exported.keys() == from_transformers(EVEN).state_dict().keys()


def test_configs_go_there_and_back() -> None:
    for config in (ODD, EVEN, dac_44k(), dac_24k(), dac_16k()):
        assert interop.config_from_transformers(interop.config_to_transformers(config)) == config
        assert interop.config_from_original(interop.config_to_original(config)) == config
    assert interop.config_from_original(interop.config_to_original(NARROW)) == NARROW


def test_missing_left_over_and_misshapen_weights_are_named() -> None:
    state = interop.weights_to_transformers(DAC(EVEN).state_dict(), EVEN)
    for name in ("decoder.conv2.weight", "quantizer.quantizers.2.codebook.weight"):
        shown = name.replace("conv2.weight", "conv2.weight_g")
        with pytest.raises(CheckpointError, match=f"lack: {shown}"):
            interop.weights_from_transformers({k: w for k, w in state.items() if k != name}, EVEN)
    with pytest.raises(CheckpointError, match="beside what is known: extra"):
        interop.weights_from_transformers(state | {"extra": torch.zeros(1)}, EVEN)
    wide = state | {"encoder.snake1.alpha": torch.zeros(1, 29, 1)}
    with pytest.raises(
        CheckpointError, match=r"snake1\.alpha \(1, 29, 1\) instead of \(1, 28, 1\)"
    ):
        interop.weights_from_transformers(wide, EVEN)
    with pytest.raises(CheckpointError, match=r"lack: decoder\.model\.0\.bias"):
        interop.weights_from_original(state, EVEN)


def without(table: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key != name}


def test_configs_without_a_counterpart_are_refused() -> None:
    gaussian = EVEN.model_copy(update={"bottleneck": GaussianConfig(latent_dim=28)})
    by_distance = EVEN.bottleneck.model_copy(update={"normalise": False})
    for config in (gaussian, EVEN.model_copy(update={"bottleneck": by_distance})):
        with pytest.raises(ConfigError, match="has an rvq bottleneck with normalise"):
            interop.config_to_transformers(config)
    with pytest.raises(ConfigError, match="has one channel, got 2"):
        interop.config_to_original(EVEN.model_copy(update={"channels": 2}))
    with pytest.raises(ConfigError, match="as wide as the encoder's end, 28, got latent_dim 6"):
        interop.config_to_transformers(NARROW)
    uneven = EVEN.model_copy(update={"bottleneck": dac_bottleneck(28, 3, codebook_size=30)})
    with pytest.raises(ConfigError, match="a power of 2, got 30"):
        interop.config_to_transformers(uneven)
    values = interop.config_to_transformers(EVEN)
    with pytest.raises(ConfigError, match="DacModel: it lacks 'n_codebooks'"):
        interop.config_from_transformers(without(values, "n_codebooks"))
    with pytest.raises(ConfigError, match=r"encoder_rates backwards, got \[2, 4\] for \[2, 4\]"):
        interop.config_from_original({"encoder_rates": [2, 4], "decoder_rates": [2, 4]})
    with pytest.raises(ConfigError, match=r"same for every codebook, got \[8, 4\]"):
        interop.config_from_original({"n_codebooks": 2, "codebook_dim": [8, 4]})


def test_keys_are_those_of_the_published_files() -> None:
    """As the file layouts are written down: the first and the last module of each part."""
    names = list(interop.weights_to_original(DAC(dac_44k(0)).state_dict(), dac_44k(0)))
    parts = {name.removesuffix(".weight_g") for name in names if name.endswith(".weight_g")}
    listed = ["encoder.block.0", "encoder.block.4.block.2.block.3", "encoder.block.4.block.4"]
    listed += ["encoder.block.6", "quantizer.quantizers.8.out_proj", "decoder.model.0"]
    listed += ["decoder.model.4.block.1", "decoder.model.4.block.4.block.3", "decoder.model.6"]
    assert parts.issuperset(listed)
    assert {"encoder.block.5.alpha", "decoder.model.1.block.0.alpha"} < set(names)
    assert all(len(a) and len(b) for a, b in pairwise(names))
