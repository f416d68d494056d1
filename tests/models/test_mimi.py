"""Mimi: what it reaches, its two quantizers, any length, in chunks as in one piece."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from audiovae.bottlenecks.rvq import RVQConfig
from audiovae.errors import AudioError, ConfigError, LatentError
from audiovae.models.base import Context
from audiovae.models.mimi import Mimi, MimiConfig, SplitRVQ, mimi
from audiovae.nn.seanet import SeanetConfig
from audiovae.nn.transformer import TransformerConfig
from audiovae.streaming import decode_blocks, encode_blocks

ODD = MimiConfig(
    channels=2,
    seanet=SeanetConfig(
        width=2, strides=(3, 5), residual_units=2, lstm_layers=0, norm="weight", padding="constant"
    ),
    transformer=TransformerConfig(width=12, layers=2, heads=3, hidden=8, window=3, layer_scale=1.0),
    bottleneck=RVQConfig(
        latent_dim=12, codebook_size=8, codebook_dim=4, n_codebooks=4, shared_projection=True
    ),
    n_semantic=2,
)
CONFIGS = {"odd": ODD, "size 0": mimi(0)}


def model_of(config: MimiConfig) -> Mimi:
    """A random model whose weakest paths still show: no small gains, filters without a sign."""
    torch.manual_seed(0)
    model = Mimi(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("_scale.scale"):
                parameter.fill_(1.0)
            elif "coder." in name and parameter.ndim == 3:
                parameter.abs_()
    return model


def seen_by(net: Callable[[Tensor], Tensor], x: Tensor, first: int, last: int) -> tuple[int, int]:
    """The first and the last input that outputs first..last have a gradient to."""
    x = x.double().requires_grad_()
    (gradient,) = torch.autograd.grad(net(x)[..., first : last + 1].square().sum(), x)
    seen = torch.nonzero(gradient.any(1)[0]).flatten()
    return int(seen[0]), int(seen[-1])


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_contexts_are_exact(config: MimiConfig) -> None:
    """The inputs that change a frame are those within the context, to both of its ends."""
    model, hop = model_of(config).double(), config.hop_length

    def features(x: Tensor) -> Tensor:
        return model.down(model.encoder_transformer(model.encoder(x).mT).mT)

    left, right = model.encoder_context
    frame = -(-left // hop) + 1
    x = torch.randn(1, config.channels, (frame + 2) * hop)
    first, last = seen_by(features, x, frame, frame)
    assert Context(frame * hop - first, last - (frame * hop + hop - 1)) == (left, right)
    left, right = model.decoder_context
    frame = left + 1
    z = torch.randn(1, config.bottleneck.latent_dim, frame + 3)
    first, last = seen_by(model.synthesise, z, frame * hop, frame * hop + hop - 1)
    assert Context(frame - first, last - frame) == (left, right)


def test_published_contexts_and_delay() -> None:
    """8 layers x 249 frames of 40 ms, twice, beside what the convolutions see; a frame is given out when its 80 ms are in."""
    with torch.device("meta"):
        model = Mimi(mimi())
    assert model.encoder_context == (1_917_560, 0)
    assert model.decoder_context == (1_001, 0)
    assert model.delay == 1919
    assert model.frame_rate == 12.5


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@torch.inference_mode()
def test_nothing_later_changes_a_frame(config: MimiConfig) -> None:
    model, hop = model_of(config), config.hop_length
    x = torch.randn(1, config.channels, 9 * hop)
    changed = x.clone()
    changed[..., 6 * hop :] = 0
    before, after = model(x), model(changed)
    assert torch.equal(before.codes[0][..., :6], after.codes[0][..., :6])
    torch.testing.assert_close(before.x_hat[..., : 6 * hop], after.x_hat[..., : 6 * hop])
    assert not torch.equal(before.x_hat[..., 6 * hop :], after.x_hat[..., 6 * hop :])


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@torch.inference_mode()
def test_every_length_comes_back_as_it_was(config: MimiConfig) -> None:
    model, hop = model_of(config), config.hop_length
    for length in (1, hop - 1, hop, hop + 1, 3 * hop + 2):
        out = model(torch.randn(1, config.channels, length))
        assert out.x_hat.shape == (1, config.channels, length)
        assert out.z.shape[-1] == out.codes[0].shape[-1] == -(-length // hop)
        assert out.x_hat.isfinite().all()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@torch.inference_mode()
def test_chunks_equal_the_whole(config: MimiConfig) -> None:
    model, hop = model_of(config), config.hop_length
    x = torch.randn(1, config.channels, 25 * hop + hop // 3)
    whole = model(x)
    z = torch.cat(list(encode_blocks(model, x[0].split(hop + 1, dim=-1), chunk_frames=4)), dim=-1)
    torch.testing.assert_close(z, whole.z[0], rtol=1e-4, atol=1e-5)
    y = torch.cat(list(decode_blocks(model, z.split(3, dim=-1), chunk_frames=4)), dim=-1)
    torch.testing.assert_close(y[:, : x.shape[-1]], whole.x_hat[0], rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_a_batch_equals_its_single_items() -> None:
    model, x = model_of(ODD), torch.randn(3, 2, 500)
    batch, singles = model(x), [model(item[None]) for item in x]
    assert torch.equal(batch.codes[0], torch.cat([single.codes[0] for single in singles]))
    torch.testing.assert_close(
        batch.x_hat, torch.cat([s.x_hat for s in singles]), rtol=1e-4, atol=1e-5
    )


def split(seed: int = 0) -> SplitRVQ:
    torch.manual_seed(seed)
    return SplitRVQ(ODD.bottleneck, ODD.n_semantic, ODD.frame_rate).eval()


@torch.inference_mode()
def test_the_halves_are_side_by_side() -> None:
    """z is the sum of the halves, and what the semantic one leaves over is not what the acoustic one codes."""
    bottleneck, h = split(), torch.randn(2, 12, 9)
    bottled = bottleneck(h, sample=False)
    (codes,) = bottled.codes
    torch.testing.assert_close(bottleneck.from_codes(codes), bottled.z)
    halves = bottleneck.semantic(h, sample=False), bottleneck.acoustic(h, sample=False)
    torch.testing.assert_close(halves[0].z + halves[1].z, bottled.z)
    total = sum(half.terms["commitment"] for half in halves)
    torch.testing.assert_close(bottled.terms["commitment"], total)
    bottleneck.semantic.layers[0].codebook.vectors.mul_(-1)
    other = bottleneck(h, sample=False).codes[0]
    assert torch.equal(other[:, 2:], codes[:, 2:]) and not torch.equal(other[:, :2], codes[:, :2])


@torch.inference_mode()
def test_any_first_codebooks_decode_to_the_sum_of_their_vectors() -> None:
    bottleneck, codes = split(), torch.randint(8, (2, 4, 5))
    z = torch.zeros(2, 5, 12)
    for count in range(1, 5):
        half, level = (
            (bottleneck.semantic, count - 1) if count <= 2 else (bottleneck.acoustic, count - 3)
        )
        vectors = half.layers[level].codebook.vectors[codes[:, count - 1]]
        z = z + vectors @ half.output.weight[..., 0].mT
        torch.testing.assert_close(bottleneck.from_codes(codes[:, :count]), z.mT)


def test_codes_of_another_model_are_refused() -> None:
    model = Mimi(ODD)
    assert model.codebook_sizes == ((8, 8, 8, 8),)
    with pytest.raises(LatentError, match="codebook 3 has codes 0 to 7, got 8"):
        model.decode([torch.tensor([0, 0, 0, 8])[None, :, None]])
    with pytest.raises(LatentError, match="1 to 4 codebooks"):
        model.decode([torch.zeros(1, 5, 2, dtype=torch.int64)])
    with pytest.raises(AudioError, match=r"the model has 2 channel\(s\), the sound has 1"):
        model.encode(torch.zeros(1, 1, 100))


def test_a_training_step_reaches_every_weight_and_moves_the_codes() -> None:
    torch.manual_seed(0)
    model = Mimi(ODD).train()
    x = torch.randn(4, 2, 30 * 20)

    def step() -> Tensor:
        out = model(x, sample=True)
        return (out.x_hat - x).square().mean() + 0.25 * out.terms["commitment"]

    step()
    model.commit(0)  # the first step places the codes by k-means
    before = model.bottleneck.acoustic.layers[1].codebook.vectors.clone()
    loss = step()
    loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    model.commit(1)
    after = model.bottleneck.acoustic.layers[1].codebook.vectors
    assert after.isfinite().all() and not torch.equal(before, after)


def test_sizes_grow_from_the_test_model_to_the_published_one() -> None:
    with torch.device("meta"):
        weights = [sum(p.numel() for p in Mimi(mimi(s)).parameters()) for s in range(4)]
    assert weights[0] < 100_000
    assert weights == sorted(weights)
    assert mimi() == MimiConfig()
    assert mimi(1, sample_rate=16_000, channels=2, n_codebooks=8).bottleneck.n_codebooks == 8


@pytest.mark.parametrize("size", [-1, 4])
def test_other_sizes_are_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=f"size must be 0 to 3, got {size}; 3 is the published"):
        mimi(size)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"seanet": SeanetConfig()}, "seanet must be causal, without LSTM"),
        ({"transformer": TransformerConfig()}, "transformer must be causal and have a window"),
        (
            {"transformer": TransformerConfig(width=16, heads=2, window=4)},
            "must be equal, got 16 and 512",
        ),
        ({"bottleneck": RVQConfig(latent_dim=512)}, "shared_projection must be true"),
        ({"n_semantic": 32}, "n_semantic must be below the number of codebooks, 32, got 32"),
    ],
)
def test_configs_that_are_no_mimi_are_refused(changes: dict[str, object], match: str) -> None:
    with pytest.raises(ValidationError, match=match):
        MimiConfig.model_validate(changes)
