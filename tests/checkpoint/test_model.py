"""A saved model loads to the same model; what is not one is refused with a line that says what it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from audiovae import checkpoint
from audiovae.checkpoint import (
    Manifest,
    Migration,
    find,
    load,
    model_hash,
    save_model,
    write_folder,
)
from audiovae.checkpoint import model as module
from audiovae.errors import CheckpointError
from audiovae.latents import LatentFit
from audiovae.models import PRESETS, Autoencoder, build, resolve


@pytest.fixture
def vae() -> Autoencoder:
    """A small model with weights of its own."""
    torch.manual_seed(1)
    return build(resolve("spec_frame", {"size": 0, "sample_rate": 8_000, "channels": 1}))


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_loaded_model_is_the_saved_one(tmp_path: Path, preset: str) -> None:
    saved = build(resolve(preset, {"size": 0})).eval()
    fit = LatentFit(saved.latent_dim)
    x = 0.1 * torch.randn(1, saved.channels, 4 * saved.hop_length)
    if preset == "token_transformer":  # which takes codes
        x = torch.zeros(1, len(saved.config.codebook_sizes), 4 * saved.hop_length).long()
    with torch.no_grad():
        out = saved(x)
    fit.update(*(out.moments or (out.z, torch.zeros_like(out.z))))
    save_model(tmp_path / "model", saved, statistics=fit.statistics())
    loaded = load(tmp_path / "model")
    assert loaded.config == saved.config and not loaded.training
    with torch.no_grad():
        assert torch.equal(loaded(x).x_hat, out.x_hat)
    assert loaded.statistics is not None
    for ours, theirs in zip(loaded.statistics, fit.statistics(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_hash_names_config_and_weights_and_nothing_else(
    tmp_path: Path, vae: Autoencoder
) -> None:
    save_model(tmp_path / "a", vae)
    save_model(tmp_path / "b", vae, extra={"more.json": {"anything": 1}})
    assert (
        load(tmp_path / "a").model_hash == model_hash(tmp_path / "a") == model_hash(tmp_path / "b")
    )
    assert load(tmp_path / "a").statistics is None
    with torch.no_grad():
        next(vae.parameters()).view(-1)[0] += 1e-6
    save_model(tmp_path / "c", vae)
    assert model_hash(tmp_path / "c") != model_hash(tmp_path / "a")
    (tmp_path / "a" / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"model.safetensors is damaged: it has 0 bytes"):
        model_hash(tmp_path / "a")


def test_a_run_folder_means_its_best_checkpoint_or_else_its_last(
    tmp_path: Path, vae: Autoencoder
) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    with pytest.raises(
        CheckpointError, match=r"run .*has no checkpoint yet; train on with --resume"
    ):
        find(run)
    for step in (100, 200, 1000):
        save_model(run / "checkpoints" / f"step_{step:08d}", vae)
    assert find(run).name == "step_00001000"
    (run / "checkpoints" / "best").write_text("step_00000200\n")
    assert find(run).name == "step_00000200"
    (run / "checkpoints" / "best").write_text("../../elsewhere\n")
    with pytest.raises(CheckpointError, match=r"best names elsewhere, which is not there"):
        find(run)


def test_paths_without_a_model_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "song.wav").write_bytes(b"RIFF")
    (tmp_path / "piano").mkdir()
    with pytest.raises(CheckpointError, match=r"there is no .*nowhere"):
        load("./nowhere")
    with pytest.raises(CheckpointError, match=r"song.wav is a file"):
        load("./song.wav")
    with pytest.raises(CheckpointError, match=r"piano is not a model folder of audiovae"):
        load("./piano")
    with pytest.raises(CheckpointError, match=r"write \./piano for the folder"):
        load("piano")


def test_a_built_in_name_is_a_folder_and_a_preset_is_not_a_model(
    tmp_path: Path, vae: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(tmp_path / "model", vae)
    monkeypatch.setitem(checkpoint.BUILT_IN, "small", tmp_path / "model")
    assert load("small").config == vae.config
    with pytest.raises(CheckpointError, match=r"no built-in model 'smal'; did you mean 'small'\?"):
        load("smal")
    with pytest.raises(CheckpointError, match=r"is a preset.* --model spec_frame --out RUN"):
        load("spec_frame")


def rewritten(source: Path, target: Path, *, drop: str = "", kind: str = "") -> Path:
    """A model folder with a valid manifest around another content."""
    manifest = Manifest.read(source)
    config, weights = manifest.json("config.json"), manifest.tensors("model.safetensors")
    if kind:
        config["model"]["kind"] = kind
    if drop:
        weights["other"] = weights.pop(drop)
    write_folder(target, {"config.json": config, "model.safetensors": weights})
    return target


def test_weights_or_a_config_that_do_not_fit_are_refused(tmp_path: Path, vae: Autoencoder) -> None:
    save_model(tmp_path / "model", vae)
    name = next(iter(vae.state_dict()))
    with pytest.raises(CheckpointError, match=r"2 weight\(s\) are missing, unknown or of another"):
        load(rewritten(tmp_path / "model", tmp_path / "a", drop=name))
    with pytest.raises(CheckpointError, match=r"config.json names no known model"):
        load(rewritten(tmp_path / "model", tmp_path / "b", kind="spec_frames"))


def test_a_renamed_weight_of_an_older_format_is_one_row(
    tmp_path: Path, vae: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(tmp_path / "model", vae)
    name = next(iter(vae.state_dict()))
    old = rewritten(tmp_path / "model", tmp_path / "old", drop=name)
    row = Migration(format=2, kind="spec_frame", old=r"^other$", new=name)
    monkeypatch.setattr(module, "MIGRATIONS", (row,))
    loaded = load(old)
    assert torch.equal(loaded.state_dict()[name], vae.state_dict()[name])
    monkeypatch.setattr(module, "MIGRATIONS", (row._replace(kind="oobleck"),))
    with pytest.raises(CheckpointError, match="does not fit its config"):
        load(old)


def test_a_model_folder_is_json_and_safetensors_only(tmp_path: Path, vae: Autoencoder) -> None:
    save_model(tmp_path / "model", vae)
    assert {p.name for p in (tmp_path / "model").iterdir()} == {
        "config.json",
        "manifest.json",
        "model.safetensors",
    }
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config == {"format": 1, "model": vae.config.model_dump(mode="json")}
