"""Import and export: what comes of them is used like any model, and is whole or not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import audiovae
from audiovae.checkpoint import save_model
from audiovae.cli import main
from audiovae.errors import CheckpointError, ConfigError, LatentError, OutputError
from audiovae.interop.dac import config_to_original, weights_to_original
from audiovae.models import Autoencoder, build, resolve


def tiny_dac(seed: int = 0) -> Autoencoder:
    torch.manual_seed(seed)
    return build(resolve("dac_16k", {"size": 0, "n_codebooks": 3})).eval()


def written_by_descript(path: Path, model: Autoencoder) -> Path:
    """A file as descript-audio-codec saves it."""
    state = weights_to_original(model.state_dict(), model.config)
    torch.save(
        {"state_dict": state, "metadata": {"kwargs": config_to_original(model.config)}}, path
    )
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_by_descript(tmp_path_factory.mktemp("descript") / "weights.pth", tiny_dac())


def test_an_imported_model_codes_like_the_one_it_was_made_from(
    tmp_path: Path, checkpoint: Path
) -> None:
    """Sound to a file of codes and back, from all codebooks and from fewer."""
    folder = audiovae.import_checkpoint("dac", checkpoint, out=tmp_path / "model")
    original, sound = tiny_dac(), 0.3 * torch.randn(1, 5_000)
    model = audiovae.load(folder)
    assert model.config == original.config
    audiovae.encode(model, sound, tmp_path / "a.safetensors", sample_rate=16_000)
    with torch.inference_mode():
        codes = original.encode(sound[None]).codes[0]
        for count in (3, 1):
            back = audiovae.decode(folder, tmp_path / "a.safetensors", n_codebooks=count)
            expected = original.decode([codes[:, :count]], 5_000)[0]
            assert (back.samples - expected).abs().max() <= 1e-5 * expected.abs().max()
    with pytest.raises(LatentError, match="codebooks"):
        audiovae.decode(folder, tmp_path / "a.safetensors", n_codebooks=4)


def test_codes_of_another_codec_are_refused(tmp_path: Path, checkpoint: Path) -> None:
    folder = audiovae.import_checkpoint("dac", checkpoint, out=tmp_path / "model")
    other = written_by_descript(tmp_path / "other.pth", tiny_dac(seed=1))
    audiovae.import_checkpoint("dac", other, out=tmp_path / "other")
    latent = audiovae.encode(folder, torch.zeros(1, 2_000), sample_rate=16_000)
    with pytest.raises(LatentError, match="model"):
        audiovae.decode(tmp_path / "other", latent)


def test_import_and_export_from_the_shell_come_back_to_the_same_weights(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, folder, again = (str(tmp_path / name) for name in ("first", "theirs", "again"))
    assert main(["import", "dac", str(checkpoint), "--out", first]) == 0
    assert capsys.readouterr().out.startswith(f"wrote {first}")
    assert main(["export", first, "--format", "transformers", "--out", folder]) == 0
    assert sorted(p.name for p in Path(folder).iterdir()) == ["config.json", "model.safetensors"]
    assert json.loads((Path(folder) / "config.json").read_text())["model_type"] == "dac"
    assert main(["import", "transformers", folder, "--out", again]) == 0
    ours, theirs = audiovae.load(first), audiovae.load(again)
    assert ours.config == theirs.config
    x = 0.3 * torch.randn(1, 1, 3_200)
    with torch.inference_mode():  # folding weight norm rounds once
        torch.testing.assert_close(ours.encoder(x), theirs.encoder(x))


def test_a_run_is_given_away_without_the_state_of_its_training(
    run_folder: Path, tmp_path: Path
) -> None:
    model = audiovae.load(run_folder)
    assert main(["export", str(run_folder), "--format", "audiovae", "--out", f"{tmp_path}/m"]) == 0
    given = audiovae.load(tmp_path / "m")
    assert given.model_hash == model.model_hash  # so that latents of either can be decoded
    assert given.statistics is not None and model.statistics is not None
    assert torch.equal(given.statistics.covariances, model.statistics.covariances)
    names = {p.name for p in (tmp_path / "m").iterdir()}
    assert names == {
        "config.json",
        "manifest.json",
        "model.safetensors",
        "statistics.safetensors",
    }


def test_what_is_refused_leaves_nothing_behind(tmp_path: Path, checkpoint: Path) -> None:
    whole = torch.load(checkpoint, weights_only=True)
    del whole["state_dict"]["decoder.model.0.bias"]
    torch.save(whole, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"the weights lack: decoder\.model\.0\.bias"):
        audiovae.import_checkpoint("dac", tmp_path, out=tmp_path / "model")
    save_model(tmp_path / "spec", build(resolve("spec_frame", {"size": 0})))
    with pytest.raises(ConfigError, match="transformers has no counterpart of spec_frame"):
        audiovae.export(tmp_path / "spec", format="transformers", out=tmp_path / "theirs")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["spec", "weights.pth"]


def test_what_exists_is_kept_unless_forced(tmp_path: Path, checkpoint: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "mine").touch()
    for verb in (
        lambda **options: audiovae.import_checkpoint("dac", checkpoint, out=folder, **options),
        lambda **options: audiovae.export(tiny_dac(), format="transformers", out=folder, **options),
    ):
        with pytest.raises(OutputError, match="model exists; --force replaces it"):
            verb()
    assert [p.name for p in folder.iterdir()] == ["mine"]
    with pytest.raises(ConfigError, match="'dca' is not a format; did you mean 'dac'"):
        audiovae.import_checkpoint("dca", checkpoint, out=folder, force=True)
    assert [p.name for p in folder.iterdir()] == ["mine"]
    audiovae.import_checkpoint("dac", checkpoint, out=folder, force=True)
    assert not (folder / "mine").exists()
    assert audiovae.load(folder).config == tiny_dac().config
    audiovae.export(tiny_dac(), format="transformers", out=folder, force=True)
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]
    with pytest.raises(OutputError, match="there is no folder"):
        audiovae.export(tiny_dac(), format="transformers", out=tmp_path / "no" / "model")
