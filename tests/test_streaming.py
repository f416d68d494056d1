"""Chunked coding equals coding in one piece, in bounded memory."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from audiovae import models
from audiovae.errors import AudioError, ConfigError, LatentError
from audiovae.models import Autoencoder, Context
from audiovae.models.base import UNLIMITED
from audiovae.streaming import decode_blocks, encode_blocks, reconstruct_blocks

CHUNKS = (None, 1, 7)


OF_SOUND = [name for name in models.PRESETS if name != "token_transformer"]  # whose input is codes
KINDS = {name: (name, {"size": 0}) for name in OF_SOUND} | {
    "causal": ("spec_frame", {"size": 0, "causal": True}),
    "mdct": ("spec_frame", {"size": 0, "front_end": "mdct", "channels": 1}),
}


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS.keys())
def model(request: pytest.FixtureRequest) -> Autoencoder:
    """Every family of sounds at size 0."""
    torch.manual_seed(0)
    return models.build(models.resolve(*request.param)).eval()


def sound(model: Autoencoder, frames: float) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return 0.3 * torch.randn(model.channels, int(frames * model.hop_length), generator=generator)


def latent(model: Autoencoder, frames: int) -> Tensor:
    return torch.randn(model.latent_dim, frames, generator=torch.Generator().manual_seed(2))


def halo_of(model: Autoencoder) -> int | None:
    """Latent frames of the larger halo; None if it is the whole sound."""
    decoder = Context(0, 0) if model.begin_decoding() else model.decoder_context
    if UNLIMITED in (*model.encoder_context, *decoder):
        return None
    return max(sum(model.encoder_context) // model.hop_length, sum(decoder))


def cut(whole: Tensor, longest: int, seed: int = 0) -> Iterator[Tensor]:
    """Blocks of random lengths, some of them empty."""
    rng, start = random.Random(seed), 0
    while start < whole.shape[-1]:
        stop = start + rng.randint(0, longest)
        yield whole[:, start:stop]
        start = stop


def assert_equal(chunked: Tensor, whole: Tensor) -> None:
    """The issue's bar: 1e-5 of the peak."""
    assert chunked.shape == whole.shape
    assert whole.std() > 0
    assert (chunked - whole).abs().max() <= 1e-5 * whole.abs().max()


@pytest.mark.parametrize("chunk_frames", CHUNKS)
def test_encoding_in_blocks_equals_encoding_in_one_piece(
    model: Autoencoder, chunk_frames: int | None
) -> None:
    x = sound(model, 61.3)
    blocks = cut(x, longest=3 * model.hop_length)
    with torch.inference_mode():
        whole = model.encode(x[None]).z[0]
    assert_equal(
        torch.cat(list(encode_blocks(model, blocks, chunk_frames=chunk_frames)), -1), whole
    )


@pytest.mark.parametrize("length", [None, 12_345])
@pytest.mark.parametrize("chunk_frames", CHUNKS)
def test_decoding_in_blocks_equals_decoding_in_one_piece(
    model: Autoencoder, chunk_frames: int | None, length: int | None
) -> None:
    z = latent(model, 61)
    blocks = cut(z, longest=9)
    with torch.inference_mode():
        whole = model.decode(z[None], length)[0]
    chunks = decode_blocks(model, blocks, length=length, chunk_frames=chunk_frames)
    assert_equal(torch.cat(list(chunks), -1), whole)


def test_default_chunks_join_without_a_seam(model: Autoencoder) -> None:
    """Long enough for two chunks of the default size each way, unless a chunk is always the whole sound."""
    halo = halo_of(model)
    x = sound(model, 1.1 * max(8 * (10 if halo is None else halo + 1), 32))
    with torch.inference_mode():
        whole = model.decode(model.encode(x[None]).z, x.shape[-1])[0]
    chunks = list(reconstruct_blocks(model, cut(x, longest=50_000)))
    assert (len(chunks) > 1) is (halo is not None)
    assert_equal(torch.cat(chunks, -1), whole)


@pytest.mark.parametrize("beyond", [0, 1, -1])
@pytest.mark.parametrize("frames", [0, 1, 5])
def test_reconstruction_has_as_many_samples_as_came(
    model: Autoencoder, frames: int, beyond: int
) -> None:
    length = max(frames * model.hop_length + beyond, 1)
    x = sound(model, 6)[:, :length]
    with torch.inference_mode():
        whole = model.decode(model.encode(x[None]).z, x.shape[-1])[0]
    chunks = reconstruct_blocks(model, cut(x, longest=999), chunk_frames=2)
    chunked = torch.cat(list(chunks), -1)
    assert chunked.shape == x.shape
    assert (chunked - whole).abs().max() <= 1e-5 * whole.abs().max()


def test_memory_does_not_grow_with_the_sound(
    model: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more than a chunk and its halo is coded at once, and input is taken only when needed."""
    longest, taken, given = 0, 0, 0
    bottle, hop = model.bottle, model.hop_length

    def watched(x: Tensor, **options: object) -> object:
        nonlocal longest
        longest = max(longest, x.shape[-1])
        return bottle(x, **options)  # type: ignore[arg-type]

    def blocks() -> Iterator[Tensor]:
        nonlocal taken
        for block in sound(model, 80).split(hop, dim=-1):
            taken += 1
            yield block

    monkeypatch.setattr(model, "bottle", watched)
    halo = sum(-(-side // hop) for side in model.encoder_context)
    for z in encode_blocks(model, blocks(), chunk_frames=4):
        given += z.shape[-1]
        assert taken <= given + halo
    assert longest <= (halo + max(4, model.unit.frames)) * hop
    assert (taken, given) == (80, model.frames_of(80 * hop))


def test_results_need_no_gradient_and_leave_the_mode_of_the_caller_alone(
    model: Autoencoder,
) -> None:
    for z in encode_blocks(model, [sound(model, 3)], chunk_frames=1):
        assert not z.requires_grad
        assert not torch.is_inference_mode_enabled()


def test_blocks_of_another_shape_are_refused(model: Autoencoder) -> None:
    channels, latent_dim = model.channels, model.latent_dim
    with pytest.raises(AudioError, match=rf"\[{channels}, samples\] of floats, got shape \(3, 5\)"):
        list(encode_blocks(model, [torch.zeros(3, 5)]))
    with pytest.raises(AudioError, match=r"torch\.int16"):
        list(reconstruct_blocks(model, [torch.zeros(channels, 5, dtype=torch.int16)]))
    with pytest.raises(LatentError, match=rf"\[{latent_dim}, frames\], got shape \(1, 2, 3\)"):
        list(decode_blocks(model, [torch.zeros(1, 2, 3)]))


def test_nothing_to_code_is_refused(model: Autoencoder) -> None:
    with pytest.raises(AudioError, match="0 samples; at least 1"):
        list(reconstruct_blocks(model, [torch.zeros(model.channels, 0)]))
    with pytest.raises(LatentError, match="0 frames; at least 1"):
        list(decode_blocks(model, []))
    with pytest.raises(ConfigError, match="chunk_frames must be at least 1, got 0"):
        list(encode_blocks(model, [sound(model, 1)], chunk_frames=0))
