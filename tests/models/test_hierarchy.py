"""The hierarchy: every length comes back, levels are heard or not, nothing reaches further than it says, detail grows."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from audiovae.data import open_dataset
from audiovae.data.synth import SynthData
from audiovae.errors import ConfigError, LatentError
from audiovae.models.hierarchy import Hierarchy, HierarchyConfig, hierarchy
from audiovae.nn.noise import generators

VARIANTS = {
    "three": {},
    "two": {"level_strides": (3,), "stride": 2, "phase": "frame"},
    "causal": {"causal": True, "kernel_size": 4},
    "deep": {"level_depth": 2, "level_strides": (2, 4), "channels": 1},
}


def tiny(**options: object) -> Hierarchy:
    torch.manual_seed(0)
    config = HierarchyConfig(**(hierarchy(0).model_dump() | options))
    model = Hierarchy(config)
    for parameter in model.parameters():  # untrained gains are small: make everything matter
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def noise(*shape: int) -> Tensor:
    return 0.3 * torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
@torch.no_grad()
def test_every_length_comes_back_whole_with_codes_at_each_rate(options: dict[str, object]) -> None:
    model = tiny(**options)
    hop, rates = model.hop_length, model.config.rates
    for length in (1, hop - 1, hop, 3 * hop + 1):
        x = noise(2, model.channels, length)
        out = model(x)
        assert out.x_hat.shape == x.shape and out.x_hat.isfinite().all()
        frames = -(-length // hop)
        assert [codes.shape[2] for codes in out.codes] == [frames * rate for rate in rates]
        assert len(model.codebook_sizes) == len(out.codes)
        torch.testing.assert_close(model.decode(out.codes, length), out.x_hat)


@torch.no_grad()
def test_a_batch_equals_its_single_items() -> None:
    model, x = tiny(), noise(3, 2, 2000)
    together, apart = model(x).x_hat, torch.cat([model(item[None]).x_hat for item in x])
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-5 * together.abs().max().item())


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
def test_a_latent_frame_sees_its_context_and_no_more(options: dict[str, object]) -> None:
    model = tiny(**options)
    context, hop = model.encoder_context, model.hop_length
    middle = context.left // hop + 2
    length = (middle + context.right // hop + 4) * hop
    x = noise(1, model.channels, length).requires_grad_()
    model.encode(x).z[..., middle].square().sum().backward()
    seen = x.grad.abs().amax((0, 1)).nonzero().flatten()
    assert middle * hop - context.left <= seen[0] <= middle * hop - context.left + 1
    assert (middle + 1) * hop + context.right - 2 <= seen[-1] < (middle + 1) * hop + context.right


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
def test_a_frame_of_sound_sees_its_latent_context_and_no_more(options: dict[str, object]) -> None:
    model = tiny(**options)
    context, hop = model.decoder_context, model.hop_length
    middle = context.left + 2
    z = noise(1, model.latent_dim, middle + context.right + 3).requires_grad_()
    model.decode(z)[..., middle * hop : (middle + 1) * hop].square().sum().backward()
    seen = z.grad.abs().amax((0, 1)).nonzero().flatten().tolist()
    assert seen == list(range(middle - context.left, middle + context.right + 1))


@torch.no_grad()
def test_fine_levels_know_the_coarse_ones_and_not_the_other_way() -> None:
    model, x = tiny(), noise(1, 2, 4000)
    before = model.encode(x).codes
    assert all(len(codes.unique()) > 4 for codes in before)
    fine, coarse = model.bottleneck.levels[2].quantiser, model.bottleneck.levels[0].quantiser
    fine.layers[0].codebook.vectors.neg_()
    assert torch.equal(model.encode(x).codes[0], before[0])
    assert torch.equal(model.encode(x).codes[1], before[1])
    fine.layers[0].codebook.vectors.neg_()
    coarse.layers[0].codebook.vectors.neg_()
    after = model.encode(x).codes
    assert not torch.equal(after[1], before[1]) and not torch.equal(after[2], before[2])


@torch.no_grad()
def test_items_that_lose_levels_in_training_are_those_decoded_from_the_coarse_codes() -> None:
    """With `level_dropout` 1 an item keeps any number of levels; its z is that of these codes alone."""
    model = tiny(level_dropout=1.0).train()
    x = noise(12, 2, 1024)
    sources = generators(0, items=12)
    kept = model.bottleneck._kept(12, generators(0, items=12))
    out = model.encode(x, sample=True, generators=sources)
    assert set(kept.tolist()) == {1, 2, 3}
    for item, count in enumerate(kept.tolist()):
        codes = [level[item : item + 1] for level in out.codes[:count]]
        torch.testing.assert_close(out.z[item : item + 1], model.from_codes(codes))
    whole = model.encode(x)  # without `sample` nothing is lost
    torch.testing.assert_close(whole.z, model.from_codes(whole.codes))


@torch.no_grad()
def test_half_of_the_items_keep_all_levels_for_sure() -> None:
    """At `level_dropout` 1/2: 1/2 and a third of the rest, 2/3 of all."""
    bottleneck = tiny(level_dropout=0.5).bottleneck
    kept = bottleneck._kept(3000, generators(1, items=3000))
    shares = kept.bincount(minlength=4)[1:] / 3000
    torch.testing.assert_close(shares, torch.tensor([1, 1, 4]) / 6, rtol=0, atol=0.03)


@torch.no_grad()
def test_terms_are_summed_over_the_levels() -> None:
    model, x = tiny(), noise(2, 2, 1024)
    seen: list[Tensor] = []
    for level in model.bottleneck.levels:
        level.quantiser.register_forward_hook(
            lambda *call: seen.append(call[2].terms["commitment"])
        )
    torch.testing.assert_close(model(x).terms["commitment"], sum(seen))
    assert len(seen) == 3


def test_detail_grows_with_every_level() -> None:
    """150 steps on twelve tones: the top alone is worst, two levels are better, three are best."""
    torch.manual_seed(0)
    model = Hierarchy(hierarchy(0, sample_rate=8000, channels=1, n_codebooks=1)).train()
    tones = SynthData(segment_seconds=0.25, valid_crops=12)
    (batch,) = open_dataset(tones, sample_rate=8000, channels=1).valid_batches(12)
    x = batch.x[..., : 3 * model.hop_length]
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for step in range(150):
        out = model(x, sample=True, generators=generators(0, step, items=12))
        distance = (model.features(out.x_hat) - model.features(x)).abs().mean()
        loss = 10 * (out.x_hat - x).abs().mean() + distance + 0.25 * out.terms["commitment"]
        optimizer.zero_grad()
        loss.backward()
        if step == 0:  # every weight has its part
            assert all(p.grad is not None and p.grad.any() for p in model.parameters())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        model.commit(step)
    model.eval()
    with torch.no_grad():
        codes = model.encode(x).codes
        errors = [float((model.decode(codes[:n]) - x).square().mean()) for n in (1, 2, 3)]
    assert errors[2] < 0.99 * errors[1] < 0.99**2 * errors[0]
    assert errors[0] < 0.95 * x.square().mean()


def test_presets_have_the_rates_they_say() -> None:
    config = hierarchy(sample_rate=24_000, channels=1)
    assert config.rates == (1, 2, 4) and config.hop_length == 4 * config.finest_hop_length == 2048
    with torch.device("meta"):
        sizes = [sum(p.numel() for p in Hierarchy(hierarchy(s)).parameters()) for s in range(4)]
    assert sizes[0] < 100_000
    assert sizes == sorted(sizes)
    assert hierarchy(0, levels=2).rates == (1, 2)


def test_codes_that_do_not_fit_are_refused() -> None:
    model = tiny()
    codes = model.encode(noise(1, 2, 2048)).codes
    with pytest.raises(LatentError, match="3 levels of codes, got 0"):
        model.decode([])
    with pytest.raises(LatentError, match="level 2 has 4 frames to one of level 0"):
        model.decode((codes[0], codes[1], codes[1]))
    with pytest.raises(LatentError, match="codes 0 to 15, got"):
        model.decode((codes[0] + 16,))


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 2 levels, got 1"):
        hierarchy(levels=1)
    with pytest.raises(ConfigError, match=r"size must be one of .*got 9"):
        hierarchy(9)
    with pytest.raises(ValidationError, match=r"levels need codes; set bottleneck\.kind to rvq"):
        HierarchyConfig(bottleneck={"kind": "gaussian"})
    with pytest.raises(ValidationError, match="greater than or equal to 2"):
        HierarchyConfig(level_strides=(1,))
