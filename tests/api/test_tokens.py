"""From sounds to tokens to a token model, and through its codec back to sound."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import audiovae
from audiovae.api.codecs import sounding
from audiovae.api.opening import open_model
from audiovae.audio.io import Sound, write
from audiovae.checkpoint import Manifest, checkpoints, model_hash, save_model
from audiovae.cli import main
from audiovae.data.tokens import read_tokens
from audiovae.errors import (
    AudioError,
    CheckpointError,
    ConfigError,
    DataError,
    LatentError,
    OutputError,
)
from audiovae.models import TokenTransformer, build, resolve
from audiovae.models.through_codec import ThroughCodec
from audiovae.streaming import decode_blocks, encode_blocks

RATE = 8_000
BLOCK = 4


def save_codec(folder: Path, seed: int) -> Path:
    """A discrete model of the test size with fresh weights."""
    torch.manual_seed(seed)
    bottleneck = {"kind": "rvq", "codebook_size": 16, "n_codebooks": 3, "latent_dim": 8}
    options = {"size": 0, "sample_rate": RATE, "channels": 1, "bottleneck": bottleneck}
    model = build(resolve("spec_frame", options))
    for parameter in model.bottleneck.buffers():
        if parameter.is_floating_point() and parameter.ndim > 1:
            torch.nn.init.normal_(parameter)  # as if it were trained: codes that differ
    save_model(folder, model)
    return folder


def tone(pitch: float, samples: int) -> Sound:
    return Sound(0.3 * torch.sin(2 * torch.pi * pitch / RATE * torch.arange(samples))[None], RATE)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A codec, two sounds, their token files and a run of a token model on them."""
    at = tmp_path_factory.mktemp("tokens")
    save_codec(at / "codec", 0)
    (at / "sounds" / "deep").mkdir(parents=True)
    write(at / "sounds" / "a.wav", tone(300, 9_000).samples, RATE)
    write(at / "sounds" / "deep" / "b.flac", tone(500, 16_001).samples, RATE)
    audiovae.tokenise(at / "codec", at / "sounds", at / "tokens")
    train(at)
    return at


def train(at: Path, out: str = "run", **settings: Any) -> Path:
    options = {"preset": "token_transformer", "size": 0, "codec": str(at / "codec"), "block": BLOCK}
    return audiovae.train(
        model=options | settings.pop("model", {}),
        data={"preset": "tokens", "path": str(at / "tokens"), "segment_seconds": 0.2},
        out=at / out,
        quiet=True,
        **{
            "steps": 4, "batch_size": 2, "validate_every": 2, "checkpoint_every": 1,
            "log_every": 1, "threads": 1, "precision": "fp32", "tensorboard": False,
        } | settings,
    )  # fmt: skip


def test_tokens_are_the_codes_of_every_sound(place: Path) -> None:
    codec = audiovae.load(place / "codec")
    for name in ("a.wav", "deep/b.flac"):
        tokens = read_tokens(place / "tokens" / f"{name}.tokens")
        with torch.no_grad():
            sound = audiovae.audio.io.read(place / "sounds" / name).samples
            (codes,) = codec.encode(sound[None]).codes
        assert torch.equal(tokens.codes, codes[0])
        assert tokens.codebook_sizes == (16, 16, 16)
        assert tokens.codec == model_hash(place / "codec")
        assert len(codes.unique()) > 2


def test_the_model_names_its_codec_and_takes_its_facts(place: Path) -> None:
    model, codec = audiovae.load(place / "run"), audiovae.load(place / "codec")
    assert isinstance(model, TokenTransformer)
    config = model.config
    assert config.codec is not None and config.codec.model_hash == codec.model_hash
    assert config.codebook_sizes == codec.codebook_sizes[0]
    assert (config.sample_rate, config.channels) == (RATE, 1)
    assert config.frame_rate == codec.frame_rate / BLOCK
    described = audiovae.info(place / "run")
    assert described.compression_in_time == BLOCK * codec.hop_length
    lines = [json.loads(line) for line in (place / "run" / "log.jsonl").read_text().splitlines()]
    found = [line["validation"] for line in lines if "validation" in line]
    assert len(found) == 2
    for figures in found:
        assert figures["negative_elbo"] == pytest.approx(figures["nll"] + figures["kl"])
        assert 0 <= figures["accuracy"] <= 1 and "mel" not in figures


def test_a_resumed_run_is_the_run_that_was_not_stopped(place: Path) -> None:
    model = {"decoder": "autoregressive", "word_dropout": 0.3}
    whole = train(place, "whole", model=model)
    cut = Path(shutil.copytree(whole, place / "cut"))
    for folder in checkpoints(cut)[-1:]:
        shutil.rmtree(folder)
    (cut / "checkpoints" / "best").unlink()
    audiovae.train(out=cut, resume=True, quiet=True)
    a, b = (Manifest.read(checkpoints(run)[-1]) for run in (whole, cut))
    for name in ("model.safetensors", "training.safetensors"):
        mine, theirs = a.tensors(name), b.tensors(name)
        assert all(torch.equal(mine[key], theirs[key]) for key in mine.keys() | theirs.keys())


def test_sounds_go_through_and_come_back_as_long_as_they_were(place: Path) -> None:
    opened = open_model(place / "run")
    assert isinstance(opened, ThroughCodec)
    x = tone(400, 5_444).samples
    latent = audiovae.encode(place / "run", x, sample_rate=RATE)
    with torch.no_grad():
        codes = opened.codec.encode(x[None]).codes
        block, hop = opened.tokens.config.block, opened.codec.hop_length
        assert codes[0].shape[-1] == -(-5_444 // hop) and -(-5_444 // hop) % block  # not full
        z = opened.tokens.encode(codes[0]).z
        expected = opened.codec.decode((opened.tokens.decode(z),))[0, :, :5_444]
    torch.testing.assert_close(latent.z, z[0], rtol=0, atol=1e-5)
    sound = audiovae.decode(place / "run", latent)
    again = audiovae.reconstruct(place / "run", x, sample_rate=RATE)
    bound = 1e-4 * float(expected.abs().max())
    for samples in (sound.samples, again.samples):
        torch.testing.assert_close(samples, expected, rtol=0, atol=bound)
    assert float(expected.std()) > 0


def test_interpolation_ends_at_both_ends_and_samples_come_from_the_latents_statistics(
    place: Path,
) -> None:
    a, b = place / "sounds" / "a.wav", place / "sounds" / "deep" / "b.flac"
    path = audiovae.interpolate(place / "run", a, b, steps=3)
    for end, name in ((path[0], a), (path[-1], b)):
        whole = audiovae.reconstruct(place / "run", name).samples
        torch.testing.assert_close(end.samples, whole, rtol=0, atol=1e-4)
    first, _ = audiovae.sample(place / "run", n=2, seconds=0.5)
    assert first.samples.shape == (1, RATE // 2)
    (alone,) = audiovae.sample(place / "run", seconds=0.5)
    assert torch.equal(alone.samples, first.samples)


def test_chunks_equal_the_whole(place: Path) -> None:
    model = open_model(place / "run")
    x = torch.randn(1, 40 * model.hop_length) * 0.1
    with torch.no_grad():
        z = model.encode(x[None]).z[0]
        whole = model.decode(z[None])[0]
    chunks = torch.cat(list(encode_blocks(model, [x], chunk_frames=3)), dim=1)
    torch.testing.assert_close(chunks, z, rtol=0, atol=1e-4)
    sound = torch.cat(list(decode_blocks(model, [z], chunk_frames=3)), dim=1)
    torch.testing.assert_close(sound, whole, rtol=0, atol=1e-4 * float(whole.abs().max()))


def test_another_codec_is_refused_with_both_named(place: Path, tmp_path: Path) -> None:
    other = save_codec(tmp_path / "codec", 1)
    named, found = (model_hash(folder)[:12] for folder in (place / "codec", other))
    model = audiovae.load(place / "run")
    assert isinstance(model, TokenTransformer)
    with pytest.raises(LatentError, match=f"of the codec {named} .* this codec is {found}; only"):
        ThroughCodec(model, audiovae.load(other))
    with pytest.raises(
        DataError, match=f"codes of the codec {named}, the model's codec is {found}; tokenise"
    ):
        train(place, "foreign", model={"codec": str(other)})


def test_a_codec_that_is_gone_is_asked_for(place: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(place / "run", tmp_path / "run"))
    (place / "codec").rename(place / "elsewhere")
    try:
        with pytest.raises(CheckpointError, match=r"needs its codec .* there is no .*codec"):
            audiovae.reconstruct(moved, place / "sounds" / "a.wav")
        assert audiovae.info(moved).kind == "token_transformer"
    finally:
        (place / "elsewhere").rename(place / "codec")


def test_what_has_no_codes_or_no_sound_is_refused(
    place: Path, model_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        ConfigError, match="has a continuous latent; train one with a vq, rvq or fsq"
    ):
        audiovae.tokenise(model_folder, place / "sounds", tmp_path / "out")
    with pytest.raises(ConfigError, match="was never saved"):
        audiovae.tokenise(unsaved(place), place / "sounds", tmp_path / "out")
    with pytest.raises(AudioError, match=r"there is no sound in .*tokens"):
        audiovae.tokenise(place / "codec", place / "tokens", tmp_path / "out")
    with pytest.raises(OutputError, match="exists"):
        audiovae.tokenise(place / "codec", place / "sounds", place / "tokens")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "c.wav").write_bytes(b"no sound")
    with pytest.raises(AudioError, match=r"1 of 1 files could not be used: .*c.wav"):
        audiovae.tokenise(place / "codec", tmp_path / "broken", tmp_path / "out")
    tokens = build(resolve("token_transformer", {"size": 0}))
    for wanted in (lambda: sounding(tokens), lambda: audiovae.sample(tokens, prior="standard")):
        with pytest.raises(LatentError, match="tokens that are no codec's, so it has no sound"):
            wanted()


def unsaved(place: Path) -> Any:
    codec = audiovae.load(place / "codec")
    codec.model_hash = None
    return codec


def test_the_shell_says_the_same(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tokenise", str(place / "codec"), str(place / "sounds"), str(tmp_path / "t")]) == 0
    for name in ("a.wav.tokens", "deep/b.flac.tokens"):
        mine, theirs = (read_tokens(at / name) for at in (tmp_path / "t", place / "tokens"))
        assert torch.equal(mine.codes, theirs.codes) and mine[1:] == theirs[1:]
    words = (
        f"train --model token_transformer --model.size 0 --model.codec {place / 'codec'} --data tokens "
        f"--data.path {tmp_path / 't'} --data.segment-seconds 0.2 --steps 1 --batch-size 2 --out {tmp_path / 'run'} --quiet"
    )
    assert main(words.split()) == 0, capsys.readouterr().err
    source = str(place / "sounds" / "a.wav")
    assert main(["reconstruct", str(tmp_path / "run"), source, str(tmp_path / "b.wav")]) == 0
    assert audiovae.audio.io.inspect(tmp_path / "b.wav").frames == 9_000
