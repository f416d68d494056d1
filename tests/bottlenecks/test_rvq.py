"""Residual quantization: greedy codes, exact sums, and the two gradients that must not be mixed up."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DacConfig
from transformers.models.dac.modeling_dac import DacResidualVectorQuantizer

from audiovae.bottlenecks import RVQ, RVQConfig
from audiovae.bottlenecks.rvq import Quantized, pointwise
from audiovae.errors import LatentError
from audiovae.nn.noise import generators

SMALL: dict[str, Any] = {"latent_dim": 6, "n_codebooks": 3, "codebook_size": 16, "dropout": 0.0}
FORMS: dict[str, dict[str, Any]] = {
    "full width": {},
    "factorised": {"codebook_dim": 2, "normalise": True, "update": "gradient"},
    "shared projection": {"codebook_dim": 4, "shared_projection": True},
}
DAC: dict[str, Any] = {
    "codebook_dim": 2,
    "normalise": True,
    "update": "gradient",
    "kmeans_iterations": 0,
    "revive_below": 0.0,
    "detach": False,
}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rvq(*, width: int | None = None, **settings: Any) -> RVQ:
    torch.manual_seed(0)
    return RVQ(RVQConfig(**(SMALL | settings)), width, 10.0)


def begun(**settings: Any) -> RVQ:
    """An RVQ whose codebooks have seen a step."""
    bottleneck = rvq(**settings)
    bottleneck(drawn(4, 6, 50), sample=True)
    bottleneck.commit(0)
    return bottleneck


def layers_of(bottleneck: RVQ, h: Tensor) -> list[Quantized]:
    """What each layer returned."""
    seen: list[Quantized] = []
    handles = [
        layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
        for layer in bottleneck.layers
    ]
    bottleneck(h, sample=False)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("form", FORMS)
def test_codes_are_greedy_and_z_is_the_sum_of_any_first_few(form: str) -> None:
    bottleneck = begun(**FORMS[form]).eval()
    h = drawn(2, 6, 20, seed=1)
    bottled = bottleneck(h, sample=False)
    (codes,) = bottled.codes
    residual = pointwise(bottleneck.input, h.mT)
    total = torch.zeros_like(residual)
    for number, layer in enumerate(bottleneck.layers):
        e, vectors = pointwise(layer.input, residual), layer.codebook.vectors
        if bottleneck.config.normalise:
            unit = torch.nn.functional.normalize
            chosen = torch.cdist(unit(e, dim=2), unit(vectors, dim=1)).argmin(2)
        else:
            chosen = torch.cdist(e, vectors).argmin(2)
        assert torch.equal(codes[:, number], chosen)
        y = pointwise(layer.output, vectors[chosen])
        residual, total = residual - y, total + y
        prefix = bottleneck.from_codes(codes[:, : number + 1])
        torch.testing.assert_close(prefix, pointwise(bottleneck.output, total).mT)
    assert torch.equal(bottleneck.from_codes(codes), bottled.z)


@pytest.mark.parametrize("form", FORMS)
def test_the_commitment_s_gradient_equals_finite_differences_at_every_layer(form: str) -> None:
    """Codes and codebooks held fixed, each layer's term is |in(h - what is subtracted) - code|^2: a function of h."""
    bottleneck = begun(**FORMS[form])
    h = drawn(1, 6, 4, seed=1).requires_grad_()
    found = layers_of(bottleneck, h)
    parts = [layer.commitment.sum() for layer in found]
    gradients = [torch.autograd.grad(part, h, retain_graph=True)[0] for part in parts]
    bottleneck.double().requires_grad_(False)
    subtracted = [layer.y.detach().double() for layer in found]

    def term(number: int, h: Tensor) -> float:
        rows = pointwise(bottleneck.input, h.mT) - sum(subtracted[:number])
        layer = bottleneck.layers[number]
        code = layer.codebook(found[number].codes)
        return float((pointwise(layer.input, rows) - code).square().mean())

    for number, gradient in enumerate(gradients):
        assert gradient.abs().max() > 1e-3
        for place in [(0, 0, 0), (0, 3, 1), (0, 5, 3)]:
            step = torch.zeros(1, 6, 4, dtype=torch.float64)
            step[place] = 1e-4
            ahead, behind = (term(number, h.detach().double() + s) for s in (step, -step))
            expected = (ahead - behind) / 2e-4
            assert float(gradient[place]) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_undetached_the_commitment_of_later_layers_has_no_gradient() -> None:
    h = drawn(1, 6, 4).requires_grad_()
    for detach, silent in ((False, True), (True, False)):
        found = layers_of(begun(detach=detach), h)
        for layer in found[1:]:
            (gradient,) = torch.autograd.grad(layer.commitment.sum(), h, retain_graph=True)
            assert bool(gradient.abs().max() < 1e-6) is silent


@pytest.mark.parametrize("detach", [True, False])
def test_the_decoder_s_gradient_passes_once_whatever_the_number_of_codebooks(detach: bool) -> None:
    h = drawn(2, 6, 5).requires_grad_()
    bottled = begun(detach=detach)(h, sample=False)
    sent = drawn(2, 6, 5, seed=3)
    (gradient,) = torch.autograd.grad(bottled.z, h, sent)
    torch.testing.assert_close(gradient, sent)


def test_through_projections_it_passes_as_if_nothing_were_rounded() -> None:
    """dz/dh = 1 - (1 - O3 I3)(1 - O2 I2)(1 - O1 I1) with a layer's projections I and O."""
    bottleneck = begun(**FORMS["factorised"])
    h = drawn(1, 6, 1).requires_grad_()
    left = torch.eye(6)
    for layer in bottleneck.layers:
        left = (torch.eye(6) - layer.output.weight[..., 0] @ layer.input.weight[..., 0]) @ left
    z = bottleneck(h, sample=False).z
    rows = [torch.autograd.grad(z[0, d, 0], h, retain_graph=True)[0][0, :, 0] for d in range(6)]
    torch.testing.assert_close(torch.stack(rows), torch.eye(6) - left)


def test_in_value_nothing_is_added_to_the_codes() -> None:
    bottleneck = begun()
    bottled = bottleneck(1e3 * drawn(2, 6, 20).requires_grad_(), sample=False)
    assert torch.equal(bottled.z, bottleneck.from_codes(bottled.codes[0]))


def test_terms_and_gradients_equal_those_of_dac() -> None:
    bottleneck = rvq(**DAC).eval()
    settings = DacConfig(
        n_codebooks=3, codebook_size=16, codebook_dim=2, hidden_size=6, quantizer_dropout=0.0
    )
    peer = DacResidualVectorQuantizer(settings).eval()
    with torch.no_grad():
        for ours, theirs in zip(bottleneck.layers, peer.quantizers, strict=True):
            for name, conv in (("input", theirs.in_proj), ("output", theirs.out_proj)):
                getattr(ours, name).weight = conv.weight.detach()
                getattr(ours, name).bias.copy_(conv.bias.normal_())
            ours.codebook.vectors.copy_(theirs.codebook.weight)
    h = drawn(2, 6, 30).requires_grad_()
    bottled = bottleneck(h, sample=False)
    z, codes, _, commitment, codebook = peer(h)
    commitment, codebook = commitment.mean(), codebook.mean()  # of the items
    assert torch.equal(bottled.codes[0], codes)
    torch.testing.assert_close(bottled.z, z)
    torch.testing.assert_close(bottled.terms["commitment"], commitment)
    torch.testing.assert_close(bottled.terms["codebook"], codebook)
    for ours, theirs in ((bottled.terms["commitment"], commitment), (bottled.z.sum(), z.sum())):
        gradients = [torch.autograd.grad(term, h, retain_graph=True)[0] for term in (ours, theirs)]
        torch.testing.assert_close(*gradients)


def test_kmeans_places_each_codebook_on_what_the_ones_before_it_leave() -> None:
    bottleneck = rvq(n_codebooks=4)
    h = drawn(4, 6, 50)
    before = bottleneck(h, sample=True)
    bottleneck.commit(0)
    assert all(bool(layer.codebook.initialised) for layer in bottleneck.layers)
    bottleneck.eval()
    (codes,) = bottleneck(h, sample=False).codes
    errors = [1.0] + [
        float((bottleneck.from_codes(codes[:, :k]) - h).square().mean()) for k in range(1, 5)
    ]
    assert all(b < 0.75 * a for a, b in itertools.pairwise(errors))
    assert errors[-1] < 0.5 * float((before.z - h).square().mean())


def test_with_few_rows_every_codebook_has_something_left_to_code() -> None:
    """Were each row a code of the first codebook, the others would begin on residuals of zero."""
    bottleneck = rvq(n_codebooks=3, codebook_size=64)
    bottleneck(drawn(2, 6, 20), sample=False)
    bottleneck.commit(0)
    for layer in bottleneck.layers:
        book = layer.codebook
        assert book.placed is not None and len(book.placed) == 10
        assert (book.vectors[book.placed].norm(dim=1) > 0.1).all()


def test_codebooks_begin_on_several_batches_if_they_are_shown_before() -> None:
    bottleneck, batches = rvq(n_codebooks=2, codebook_size=32), drawn(6, 2, 6, 20)
    for h in batches:
        bottleneck(h, sample=False)
    assert bottleneck.fresh
    bottleneck.begin(0)
    assert not bottleneck.fresh
    counts = bottleneck.layers[0].codebook.counts
    assert float(counts.sum()) == pytest.approx(40) and int((counts > 0).sum()) > 20  # of a step
    before = {name: value.clone() for name, value in bottleneck.state_dict().items()}
    bottleneck.commit(1)  # nothing is left of the looks
    assert all(torch.equal(bottleneck.state_dict()[name], value) for name, value in before.items())


def test_a_commit_without_a_step_or_after_discard_changes_nothing() -> None:
    bottleneck = begun()
    before = {name: value.clone() for name, value in bottleneck.state_dict().items()}
    bottleneck.commit(1)
    bottleneck(torch.full((1, 6, 4), torch.nan), sample=True)
    bottleneck.discard()
    bottleneck.commit(2)
    bottleneck.eval()(drawn(1, 6, 40), sample=True)
    bottleneck.commit(3)
    after = bottleneck.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_the_seed_alone_decides_where_codes_go() -> None:
    states = []
    for seed in (1, 1, 2):
        bottleneck = rvq()
        bottleneck(drawn(4, 6, 50), sample=True, generators=generators(0, items=4))
        bottleneck.commit(seed)
        states.append(bottleneck.layers[2].codebook.vectors)
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


def test_dropout_keeps_any_number_of_codebooks_in_its_share_of_items() -> None:
    bottleneck = begun(dropout=0.6)
    items = 1000
    h = drawn(1, 6, 3).expand(items, 6, 3)
    bottled = bottleneck(h, sample=True, generators=generators(0, items=items))
    (codes,) = bottled.codes
    assert codes.shape == (items, 3, 3)  # all of them, whatever was heard
    prefixes = [bottleneck.from_codes(codes[:, :k]) for k in (1, 2, 3)]
    equal = torch.stack([(bottled.z == prefix).flatten(1).all(1) for prefix in prefixes])
    assert torch.equal(equal.sum(0), torch.ones(items, dtype=torch.int64))
    shares = equal.float().mean(1).tolist()
    assert shares == pytest.approx([0.2, 0.2, 0.6], abs=0.05)
    alone = bottleneck(h[7:8], sample=True, generators=generators(0, items=1, first=7))
    assert torch.equal(alone.z[0], bottled.z[7])
    assert torch.equal(bottleneck(h, sample=False).z, prefixes[-1])
    assert torch.equal(bottleneck.eval()(h, sample=True).z, prefixes[-1])


def test_the_mean_commitment_is_over_the_codebooks_that_an_item_keeps() -> None:
    """As AudioCraft takes it."""
    bottleneck = begun(dropout=1.0, reduction="mean")
    h, chance = drawn(5, 6, 40), generators(3, items=5)
    kept = bottleneck._kept(5, generators(3, items=5))
    assert len(kept.unique()) > 1
    found = bottleneck(h, sample=True, generators=chance).terms["commitment"]
    expected = []
    for item, count in zip(h.mT, kept.tolist(), strict=True):
        residual, costs = item, []
        for layer in bottleneck.layers[:count]:
            q = layer.codebook(layer.codebook.search(residual))
            costs.append((residual - q).square().mean())
            residual = residual - q
        expected.append(torch.stack(costs).mean())
    torch.testing.assert_close(found, torch.stack(expected).mean())


def test_codebooks_that_are_not_heard_cost_nothing() -> None:
    bottleneck = begun(dropout=1.0, **FORMS["factorised"])
    h = drawn(8, 6, 5)
    bottled = bottleneck(h, sample=True, generators=generators(0, items=8))
    kept = bottleneck._kept(8, generators(0, items=8))
    found = layers_of(bottleneck, h)
    for name in ("commitment", "codebook"):
        parts = [getattr(layer, name) * (kept > k) for k, layer in enumerate(found)]
        torch.testing.assert_close(bottled.terms[name], torch.stack(parts).sum(0).mean())


def test_autocast_changes_no_code() -> None:
    bottleneck = begun(**FORMS["factorised"]).eval()
    h = drawn(2, 6, 200)
    expected = bottleneck(h, sample=False)
    with torch.autocast("cpu", torch.bfloat16):
        bottled = bottleneck(h, sample=False)
        z = bottleneck.from_codes(bottled.codes[0])
    assert torch.equal(bottled.codes[0], expected.codes[0])
    assert torch.equal(bottled.z, expected.z) and torch.equal(z, expected.z)


def test_features_of_another_width_are_projected_once() -> None:
    bottleneck = rvq(width=9).eval()
    h = drawn(2, 9, 5)
    inner = rvq().eval()
    inner.load_state_dict(
        {k: v for k, v in bottleneck.state_dict().items() if not k.startswith("features")}
    )
    expected = inner(bottleneck.features(h), sample=False)
    assert torch.equal(bottleneck(h, sample=False).z, expected.z)


@pytest.mark.parametrize(
    ("codes", "complaint"),
    [
        (torch.zeros(1, 4, 2, dtype=torch.int64), r"1 to 3 codebooks.*got shape \(1, 4, 2\)"),
        (torch.zeros(3, 2, dtype=torch.int64), r"codes are \[batch, 1 to 3 codebooks, frames\]"),
        (torch.zeros(1, 3, 0, dtype=torch.int64), r"got shape \(1, 3, 0\)"),
        (torch.zeros(1, 3, 2), "codes are integers, got torch.float32"),
        (torch.tensor([[[1], [16], [0]]]), "codebook 1 has codes 0 to 15, got 16"),
        (torch.tensor([[[1], [0], [-2]]]), "codebook 2 has codes 0 to 15, got -2; do these codes"),
    ],
)
def test_codes_that_cannot_be_are_refused(codes: Tensor, complaint: str) -> None:
    with pytest.raises(LatentError, match=complaint):
        rvq().from_codes(codes)
