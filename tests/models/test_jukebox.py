"""Jukebox's VQ-VAE: three autoencoders at three rates, decoded from any one of them."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional

from audiovae.bottlenecks import VQConfig
from audiovae.errors import ConfigError, LatentError
from audiovae.losses import jukebox as losses
from audiovae.models.jukebox import Jukebox, JukeboxConfig, jukebox
from audiovae.training.objective import Objective, ObjectiveConfig
from audiovae.training.schedules import Progress

SMALL = JukeboxConfig(
    channels=2,
    bottleneck=VQConfig(latent_dim=3, codebook_size=7, update="ema"),
    halvings=(2, 1),
    multiples=(2, 1),
    width=4,
    depth=1,
)


def model_of(config: JukeboxConfig = SMALL) -> Jukebox:
    """Random weights, loud enough that codes differ."""
    torch.manual_seed(0)
    model = Jukebox(config).eval()
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, std=0.5 if name.endswith("weight") else 0.1)
    return model


def open_model(config: JukeboxConfig) -> Jukebox:
    """One in float64 whose weights are positive: fed positive numbers, no ReLU closes a path."""
    model = model_of(config).double()
    for parameter in model.parameters():
        parameter.data.abs_()
    return model


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def unit(h: Tensor, module: nn.Module, dilation: int) -> Tensor:
    _, first, _, second = module.branch
    wide = functional.conv1d(functional.relu(h), first.weight, first.bias, 1, dilation, dilation)
    return h + functional.conv1d(functional.relu(wide), second.weight, second.bias)


@torch.inference_mode()
def test_the_nets_are_the_published_ones_written_out() -> None:
    """Level 0 has twice the width and depth; each level's net ends with 3 numbers and goes on from there."""
    model, x = model_of(), noise(1, 2, 64)
    coarse, fine = model.levels

    def conv(h: Tensor, module: nn.Module, *numbers: int) -> Tensor:
        return functional.conv1d(h, module.weight, module.bias, *numbers)

    e = list(fine.encoder)
    h = unit(unit(conv(x, e[0], 2, 1), e[1], 1), e[2], 3)
    h = unit(unit(conv(h, e[3], 2, 1), e[4], 1), e[5], 3)
    torch.testing.assert_close(fine.encoder(x), conv(h, e[6], 1, 1))
    assert len(e) == 7 and e[0].weight.shape == (8, 2, 4)

    e = list(coarse.encoder)
    h = unit(conv(unit(conv(x, e[0], 2, 1), e[1], 1), e[2], 2, 1), e[3], 1)
    h = conv(unit(conv(conv(h, e[4], 1, 1), e[5], 2, 1), e[6], 1), e[7], 1, 1)
    torch.testing.assert_close(coarse.encoder(x), h)
    assert len(e) == 8 and e[0].weight.shape == (4, 2, 4)

    d, z = list(fine.decoder), noise(1, 3, 16)
    h = unit(unit(conv(z, d[0], 1, 1), d[1], 3), d[2], 1)
    h = functional.conv_transpose1d(h, d[3].weight, d[3].bias, 2, 1)
    h = unit(unit(h, d[4], 3), d[5], 1)
    h = functional.conv_transpose1d(h, d[6].weight, d[6].bias, 2, 1)
    torch.testing.assert_close(fine.decoder(z), conv(h, d[7], 1, 1))
    assert d[6].weight.shape == (8, 3, 4)


@torch.inference_mode()
def test_a_sound_is_decoded_from_the_finest_level_given_and_no_other() -> None:
    model, x = model_of(), noise(2, 2, 100)
    out = model(x)
    assert [codes.shape for codes in out.codes] == [(2, 1, 13), (2, 1, 26)]
    assert all(len(codes.unique()) > 3 for codes in out.codes)
    for count, level in ((1, model.levels[0]), (2, model.levels[1])):
        codes = out.codes[count - 1]
        alone = level.decoder(level.bottleneck.from_codes(codes))[..., :100]
        torch.testing.assert_close(model.decode(out.codes[:count], 100), alone)
    torch.testing.assert_close(model.decode(out.codes, 100), out.x_hat)
    mixed = model.from_codes(out.codes).clone()
    mixed[1, 3:] = 0  # the second item has its coarse codes only
    first, second = model.decode(out.codes, 100)[:1], model.decode(out.codes[:1], 100)[1:]
    expected = torch.cat([first, second])
    assert (model.decode(mixed, 100) - expected).abs().max() <= 1e-5 * expected.abs().max()
    others = (torch.zeros_like(out.codes[0]), out.codes[1])
    torch.testing.assert_close(model.decode(others, 100), out.x_hat)


@torch.inference_mode()
def test_z_holds_the_codes_of_all_levels() -> None:
    model, x = model_of(), noise(1, 2, 80)
    bottled = model.encode(x)
    assert bottled.z.shape == (1, model.latent_dim, 10) and model.latent_dim == 3 + 2 * 3
    torch.testing.assert_close(model.from_codes(bottled.codes), bottled.z)
    assert model.codebook_sizes == ((7,), (7,))


def test_terms_are_summed_over_the_levels_and_weighed_as_published() -> None:
    model, x = model_of(), 0.3 * noise(2, 2, 640)
    out = model(x)
    by_level = [model.decode(out.codes[:1], 640), out.x_hat]
    expected = {
        "l2": sum(losses.l2(x_hat, x) for x_hat in by_level),
        "linf": sum(losses.linf(x_hat, x) for x_hat in by_level),
        "multispectral": sum(losses.multispectral(x_hat, x) for x_hat in by_level),
    }
    pairs = [(lv.encoder(x), lv.bottleneck.from_codes(c)) for lv, c in zip(model.levels, out.codes, strict=True)]  # fmt: skip
    expected["commitment"] = sum((h - q).square().mean() for h, q in pairs)
    assert out.terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(out.terms[name], value)
    objective = Objective(ObjectiveConfig(), SMALL.sample_rate, SMALL.default_objective)
    total = objective(out, x, Progress(0, 0.0, 0)).total
    weights = {"l2": 1.0, "linf": 0.02, "multispectral": 1.0, "commitment": 0.02}
    torch.testing.assert_close(total, sum(weights[name] * out.terms[name] for name in weights))


def test_a_few_steps_lower_every_levels_error() -> None:
    torch.manual_seed(0)
    model = Jukebox(jukebox(0)).train()
    x = 0.5 * torch.sin(torch.arange(400) * 0.05)[None, None]
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    objective = Objective(ObjectiveConfig(), 44_100, "jukebox")

    @torch.no_grad()
    def errors() -> list[float]:
        codes = model.eval().encode(x).codes
        found = [float(losses.l2(model.decode(codes[:n], 400), x)) for n in (1, 2, 3)]
        model.train()
        return found

    objective(model(x), x, Progress(0, 0.0, 0)).total.backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    model.commit(0)
    before = errors()
    for step in range(50):
        optimizer.zero_grad()
        objective(model(x), x, Progress(step, step / 50, 0)).total.backward()
        optimizer.step()
        model.commit(step)
    assert all(after < 0.5 * start for after, start in zip(errors(), before, strict=True))


@pytest.mark.parametrize("config", [SMALL, jukebox(0)], ids=["two levels", "size 0"])
def test_a_latent_frame_sees_its_context_and_no_more(config: JukeboxConfig) -> None:
    model, hop = open_model(config), config.hop_length
    left, right = model.encoder_context
    middle = left // hop + 2
    x = noise(1, config.channels, (middle + right // hop + 4) * hop).double()
    x = x.abs().requires_grad_()
    model.encode(x).z[..., middle].square().sum().backward()
    seen = x.grad.abs().amax((0, 1)).nonzero().flatten()
    assert (int(seen[0]), int(seen[-1])) == (middle * hop - left, (middle + 1) * hop - 1 + right)


@pytest.mark.parametrize("config", [SMALL, jukebox(0)], ids=["two levels", "size 0"])
def test_a_frame_of_sound_sees_its_latent_context_at_most(config: JukeboxConfig) -> None:
    """The context is that of the widest decoder; one of the levels needs all of it on each side."""
    model, hop = open_model(config), config.hop_length
    left, right = model.decoder_context
    middle, frames = left + 2, left + right + 5
    firsts, lasts = [], []
    for level, rate in zip(model.levels, config.rates, strict=True):
        z = noise(1, config.bottleneck.latent_dim, frames * rate).double()
        z = z.abs().requires_grad_()
        level.decoder(z)[..., middle * hop : (middle + 1) * hop].square().sum().backward()
        seen = z.grad.abs().amax((0, 1)).nonzero().flatten() // rate
        firsts.append(int(seen[0]))
        lasts.append(int(seen[-1]))
    assert (min(firsts), max(lasts)) == (middle - left, middle + right)


@torch.inference_mode()
def test_every_length_comes_back_as_it_was() -> None:
    model, hop = model_of(), SMALL.hop_length
    for length in (1, hop - 1, hop, hop + 1, 9 * hop + 2):
        out = model(noise(1, 2, length))
        assert out.x_hat.shape == (1, 2, length)
        assert [codes.shape[-1] for codes in out.codes] == [
            -(-length // hop),
            2 * -(-length // hop),
        ]


def test_the_published_size_has_the_published_rates() -> None:
    config = jukebox()
    assert config.hop_lengths == (128, 32, 8) and config.rates == (1, 4, 16)
    with torch.device("meta"):
        weights = [sum(p.numel() for p in Jukebox(jukebox(s)).parameters()) for s in range(3)]
    assert weights[0] < 100_000
    assert weights == sorted(weights)
    assert weights[2] == 1_485_763  # of transformers 4.38's JukeboxVQVAE at this config


def test_codes_that_do_not_fit_are_refused() -> None:
    model = model_of()
    codes = model.encode(noise(1, 2, 32)).codes
    with pytest.raises(LatentError, match="2 levels of codes, got 3"):
        model.decode((*codes, codes[1]))
    with pytest.raises(LatentError, match="level 1 has 2 frames to one of level 0"):
        model.decode((codes[0], codes[1][..., 1:]))
    with pytest.raises(LatentError, match="codes 0 to 6, got"):
        model.decode((codes[0] + 7,))


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="size must be 0 to 2, got 3"):
        jukebox(3)
    with pytest.raises(ValidationError, match="got 2 levels and 3 multiples"):
        JukeboxConfig(halvings=(3, 2))
    with pytest.raises(ValidationError, match="kind"):
        JukeboxConfig(bottleneck={"kind": "gaussian"})
