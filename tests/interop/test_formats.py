"""Foreign checkpoints: read from the peers' own files, written for them to load, refused where they could run code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from audiovae.bottlenecks import GaussianConfig
from audiovae.errors import CheckpointError, ConfigError
from audiovae.interop import dac as dac_keys
from audiovae.interop import oobleck as oobleck_keys
from audiovae.interop.formats import FORMATS, read, written
from audiovae.models import Autoencoder, ModelConfig, build, resolve
from audiovae.models.dac import DACConfig, dac_bottleneck
from audiovae.models.oobleck import OobleckConfig

Fill = Callable[[nn.Module], nn.Module]

OOBLECK = OobleckConfig(
    sample_rate=16_000,
    width=4,
    strides=(2, 4),
    multiples=(1, 2),
    bottleneck=GaussianConfig(latent_dim=2, parametrisation="softplus"),
)
DAC = DACConfig(
    sample_rate=16_000,
    width=3,
    decoder_width=8,
    strides=(2, 4),
    bottleneck=dac_bottleneck(12, n_codebooks=2, codebook_size=16, codebook_dim=2),
)


def oobleck_peer(fill: Fill) -> Any:
    from diffusers import AutoencoderOobleck

    return fill(AutoencoderOobleck(**oobleck_keys.config_to_diffusers(OOBLECK)))


def dac_peer(fill: Fill) -> Any:
    from transformers import DacConfig, DacModel

    return fill(DacModel(DacConfig(**dac_keys.config_to_transformers(DAC))))


def loaded(config: ModelConfig, weights: dict[str, Tensor]) -> Autoencoder:
    model = build(config)
    model.load_state_dict(weights)
    return model.eval()


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    assert theirs.std() > 0.01
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def sound(config: ModelConfig) -> Tensor:
    return 0.3 * torch.randn(1, config.channels, 40 * config.hop_length)


@torch.inference_mode()
def assert_equal_oobleck(model: Autoencoder, peer: Any) -> None:
    x = sound(OOBLECK)
    theirs = peer.encode(x).latent_dist.mean
    assert_close(model.encode(x).z, theirs)
    assert_close(model.decode(theirs), peer.decode(theirs).sample)


@torch.inference_mode()
def assert_equal_dac(model: Autoencoder, peer: Any) -> None:
    x = sound(DAC)
    assert_close(model.encoder(x), peer.encoder(x))
    codes = peer.encode(x).audio_codes
    assert_close(model.decode([codes])[:, 0], peer.decode(audio_codes=codes).audio_values)


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
def test_a_folder_of_diffusers_is_read(tmp_path: Path, fill: Fill, safe: bool) -> None:
    peer = oobleck_peer(fill)
    peer.save_pretrained(tmp_path, safe_serialization=safe)
    assert {p.suffix for p in tmp_path.iterdir()} == {".json", ".safetensors" if safe else ".bin"}
    config, weights = read("diffusers", tmp_path)
    assert config == OOBLECK
    assert_equal_oobleck(loaded(config, weights), peer)


def test_a_folder_of_transformers_is_read_and_a_file_of_it_too(tmp_path: Path, fill: Fill) -> None:
    peer = dac_peer(fill)
    peer.save_pretrained(tmp_path)
    for path in (tmp_path, tmp_path / "model.safetensors"):
        config, weights = read("transformers", path)
        assert config == DAC
        assert_equal_dac(loaded(config, weights), peer)


def test_transformers_loads_what_is_written(tmp_path: Path, fill: Fill) -> None:
    from transformers import AutoModel, DacModel

    model = fill(build(DAC))
    for name, data in written("transformers", model).items():
        (tmp_path / name).write_bytes(data)
    for loader in (DacModel, AutoModel):
        peer, told = loader.from_pretrained(tmp_path, output_loading_info=True)
        assert type(peer) is DacModel
        assert not any(told.values()), told
        assert_equal_dac(model, peer.eval())
    assert peer.config.sampling_rate == 16_000


def test_diffusers_loads_what_is_written(tmp_path: Path, fill: Fill) -> None:
    from diffusers import AutoencoderOobleck

    model = fill(build(OOBLECK))
    for name, data in written("diffusers", model).items():
        (tmp_path / name).write_bytes(data)
    peer, told = AutoencoderOobleck.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(told.values()), told
    assert_equal_oobleck(model, peer.eval())


def descript_file(path: Path, model: Autoencoder) -> Path:
    """A file as descript-audio-codec saves it without its package."""
    kwargs = dac_keys.config_to_original(model.config)
    state = dac_keys.weights_to_original(model.state_dict(), model.config)
    torch.save({"state_dict": state, "metadata": {"kwargs": kwargs}}, path)
    return path


def test_a_file_of_descript_audio_codec_is_read(tmp_path: Path) -> None:
    model = build(DAC)
    file = descript_file(tmp_path / "weights.pth", model)
    for path in (file, tmp_path):
        config, weights = read("dac", path)
        assert config == DAC
        assert all(torch.equal(weights[name], w) for name, w in model.state_dict().items())


def test_half_precision_becomes_single(tmp_path: Path) -> None:
    model = build(DAC).bfloat16()
    config, weights = read("dac", descript_file(tmp_path / "weights.pth", model))
    assert {w.dtype for w in weights.values()} == {torch.float32}
    build(config).load_state_dict(weights)


class Payload:
    """What a pickle must not be able to do."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_file_that_runs_code_is_refused_and_runs_nothing(tmp_path: Path, zipped: bool) -> None:
    file, mark = tmp_path / "weights.pth", tmp_path / "ran"
    content = {"state_dict": {}, "metadata": Payload(mark)}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        CheckpointError, match=r"weights\.pth needs more than tensors.*\(Unsupported global: "
    ):
        read("dac", file)
    assert not mark.exists()


def test_a_package_with_code_in_it_is_refused(tmp_path: Path) -> None:
    with torch.package.PackageExporter(tmp_path / "package.pth") as package:
        package.save_source_string("DAC", "raise SystemExit")
    with pytest.raises(CheckpointError, match=r"package\.pth is not a checkpoint of weights: "):
        read("dac", tmp_path / "package.pth")


def test_what_is_not_a_checkpoint_is_refused(tmp_path: Path) -> None:
    for name in ("model.safetensors", "weights.pth"):
        (tmp_path / name).write_bytes(b"no weights")
    (tmp_path / "config.json").write_text('{"model_type": "dac"}')
    for format, name in (("transformers", "model.safetensors"), ("dac", "weights.pth")):
        with pytest.raises(CheckpointError, match=rf"{name} (is not a checkpoint|needs more)"):
            read(format, tmp_path / name)
    torch.save([1, 2], tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="holds list, a table of weights is expected"):
        read("dac", tmp_path)
    torch.save({"a": torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="not a checkpoint of dac: it lacks 'metadata'"):
        read("dac", tmp_path)
    torch.save({"metadata": {"kwargs": {}}, "state_dict": 3}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="it holds no table of weights"):
        read("dac", tmp_path)
    torch.save({"metadata": {"kwargs": {}}, "state_dict": {"a": 3}}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="has no weights under a"):
        read("dac", tmp_path)


def test_what_is_missing_or_unknown_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'difusers' is not a format; did you mean 'diffusers'"):
        read("difusers", tmp_path)
    with pytest.raises(CheckpointError, match=r"there is no .*nothing"):
        read("dac", tmp_path / "nothing")
    with pytest.raises(
        CheckpointError,
        match=r"no weights of transformers: model\.safetensors or pytorch_model\.bin is expected",
    ):
        read("transformers", tmp_path)
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"there is no config\.json beside .*model\.safete"):
        read("transformers", tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ConfigError, match=r"config\.json has model_type 'bert'; known .* are dac"):
        read("transformers", tmp_path)
    values = {"model_type": "dac"} | dac_keys.config_to_transformers(DAC)
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="the weights lack: "):
        read("transformers", tmp_path)


def test_a_model_without_a_counterpart_is_not_written() -> None:
    model = build(resolve("spec_frame", {"size": 0}))
    with pytest.raises(
        ConfigError, match=r"diffusers has no counterpart of spec_frame; .* oobleck"
    ):
        written("diffusers", model)
    with pytest.raises(ConfigError, match=r"stable-audio-tools has no counterpart .* only read"):
        written("stable-audio-tools", model)


def test_every_net_that_is_written_is_told_by_its_stamp() -> None:
    """Else what is written could not be read again."""
    for layout in FORMATS.values():
        for net in layout.nets:
            assert (net.config_to is None) == (net.weights_to is None)
            assert net.config_to is None or (net.stamp and layout.config)
            assert net.stamp or len(layout.nets) == 1
