"""The transformer stack: against torch's own layer and a dense form, and its invariants."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from audiovae.errors import ConfigError
from audiovae.nn.transformer import Transformer, TransformerConfig, attend, rotate, rotations


def config(**changes: object) -> TransformerConfig:
    values = {"width": 12, "layers": 3, "heads": 3, "hidden": 20} | changes
    return TransformerConfig.model_validate(values)


def stack(seed: int = 0, **changes: object) -> Transformer:
    torch.manual_seed(seed)
    return Transformer(config(**changes)).eval().requires_grad_(False)


def test_equals_torchs_own_layer_where_rotations_do_nothing() -> None:
    """At an immense base only the first pair turns; its queries and keys are set to zero."""
    ours = stack(layers=1, heads=1, rope_base=1e30).layers[0]
    theirs = nn.TransformerEncoderLayer(
        12, 1, 20, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    ).eval()
    attention = ours.attention
    for linear in (attention.query, attention.key):
        for turning in (0, 6):
            linear.weight[turning] = linear.bias[turning] = 0
    joint = [attention.query, attention.key, attention.value]
    with torch.no_grad():
        theirs.self_attn.in_proj_weight.copy_(torch.cat([part.weight for part in joint]))
        theirs.self_attn.in_proj_bias.copy_(torch.cat([part.bias for part in joint]))
    pairs = [
        (theirs.self_attn.out_proj, attention.output),
        (theirs.linear1, ours.expand),
        (theirs.linear2, ours.project),
        (theirs.norm1, ours.attention_norm),
        (theirs.norm2, ours.mlp_norm),
    ]
    for their, our in pairs:
        their.load_state_dict(our.state_dict())
    x = torch.randn(2, 7, 12)
    rotation = rotations(7, 0, config(heads=1, rope_base=1e30), x.device)
    unseen = nn.Transformer.generate_square_subsequent_mask(7)
    with torch.no_grad():
        expected = theirs(x, src_mask=unseen)
    torch.testing.assert_close(ours(x, rotation, None, None)[0], expected)


def test_rotation_is_a_complex_turn_so_that_only_distances_count() -> None:
    settings = config(width=24, heads=3, rope_base=50.0)
    h = torch.randn(1, 3, 5, 8)
    turned = rotate(h, rotations(5, 2, settings, h.device))
    angles = torch.arange(2, 7)[:, None] * 50.0 ** (-torch.arange(4) / 4)
    expected = torch.complex(h[..., :4], h[..., 4:]) * torch.polar(torch.ones(5, 4), angles)
    torch.testing.assert_close(turned, torch.cat([expected.real, expected.imag], dim=-1))
    later = rotate(h, rotations(5, 102, settings, h.device))
    torch.testing.assert_close(turned @ turned.mT, later @ later.mT, rtol=1e-4, atol=1e-4)


def dense(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    scores = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(~seen, -math.inf)
    return scores.softmax(-1) @ v


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [None, 1, 3, 70])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(("length", "past"), [(150, 0), (5, 0), (4, 80), (1, 9)])
def test_blocks_equal_the_dense_form(
    causal: bool, window: int | None, masked: bool, length: int, past: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 3, length, 4, generator=generator)
    k, v = torch.randn(2, 2, 3, past + length, 4, generator=generator)
    mask = torch.rand(2, past + length, generator=generator) > 0.3 if masked else None
    distance = torch.arange(past, past + length)[:, None] - torch.arange(past + length)
    seen = distance >= 0 if causal else distance.abs() >= 0
    if window is not None:
        seen = seen & (distance.abs() < window)
    if mask is not None:
        seen = (seen & mask[:, None, None]) | (distance == 0)
    got = attend(q, k, v, causal=causal, window=window, mask=mask)
    torch.testing.assert_close(got, dense(q, k, v, seen))


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("pieces", [[1] * 11, [3, 1, 5, 2], [11]])
def test_steps_equal_the_whole(window: int | None, pieces: list[int]) -> None:
    model, x = stack(window=window, layer_scale=0.5, bias=False), torch.randn(2, 11, 12)
    state, parts = model.initial_state(2), []
    for piece in x.split(pieces, dim=1):
        y, state = model.step(piece, state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, dim=1), model(x), rtol=1e-4, atol=1e-5)
    assert state.position == 11
    kept = 11 if window is None else window - 1
    assert all(layer.keys.shape[2] == layer.values.shape[2] == kept for layer in state.layers)


@pytest.mark.parametrize("causal", [True, False])
def test_reach_is_exact(causal: bool) -> None:
    model = stack(window=3, causal=causal)
    x = torch.randn(1, 30, 12, requires_grad=True)
    model(x)[0, 15].sum().backward()
    assert x.grad is not None
    touched = x.grad[0].abs().sum(-1).nonzero().flatten()
    reach = model.config.reach
    assert reach == 6
    assert (touched.min(), touched.max()) == (15 - reach, 15 if causal else 15 + reach)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [None, 2])
def test_a_padded_item_equals_itself_alone(causal: bool, window: int | None) -> None:
    model = stack(causal=causal, window=window)
    x = torch.randn(2, 9, 12)
    mask = torch.arange(9) < torch.tensor([[9], [4]])
    y = model(x, mask)
    assert y.isfinite().all()
    torch.testing.assert_close(y[1:, :4], model(x[1:, :4]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(y[:1], model(x[:1]), rtol=1e-4, atol=1e-5)


def test_layer_scale_of_zero_is_the_identity() -> None:
    x = torch.randn(2, 5, 12)
    assert torch.equal(stack(layer_scale=0.0)(x), x)


def test_a_fresh_deep_stack_keeps_the_size_of_its_input() -> None:
    x = torch.randn(4, 16, 64)
    y = stack(width=64, heads=4, hidden=256, layers=24)(x)
    assert 0.9 < float(y.std() / x.std()) < 1.5


def test_gradients_reach_every_weight() -> None:
    model = stack(window=3, layer_scale=0.1).requires_grad_(True)
    model(torch.randn(2, 8, 12)).square().sum().backward()
    still = [
        name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()
    ]
    assert still == []


def test_odd_heads_are_refused() -> None:
    with pytest.raises(ValidationError, match="multiple of twice the heads, got 12 for 4 heads"):
        config(heads=4)


def test_steps_of_a_stack_that_is_not_causal_are_refused() -> None:
    with pytest.raises(ConfigError, match="not causal cannot run step by step; set causal"):
        stack(causal=False).initial_state(1)
