"""The token VAE: padding, blocks, what its decoders may see, and its bound against a closed form."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from audiovae.errors import ConfigError, LatentError
from audiovae.models import TokenTransformer, build, resolve
from audiovae.nn.noise import generators

SIZES, BLOCK = (5, 3), 4


def model(decoder: str = "parallel", **options: Any) -> TokenTransformer:
    torch.manual_seed(0)
    config = resolve(
        "token_transformer",
        {"size": 0, "block": BLOCK, "codebook_sizes": SIZES, "decoder": decoder, **options},
    )
    built = build(config)
    assert isinstance(built, TokenTransformer)
    return built.eval()


def codes(items: int, frames: int, seed: int = 0) -> Tensor:
    chance = torch.Generator().manual_seed(seed)
    rows = [torch.randint(size, (items, frames), generator=chance) for size in SIZES]
    return torch.stack(rows, dim=1)


@pytest.mark.parametrize("decoder", ["parallel", "autoregressive"])
def test_padded_batches_equal_single_items(decoder: str) -> None:
    vae, x = model(decoder), codes(3, 11)
    lengths = (11, 6, 1)
    for item, length in enumerate(lengths):
        x[item, :, length:] = -1
    with torch.no_grad():
        out = vae(x, sample=True, generators=generators(0, items=3))
        log_probs = vae.log_probs(out.z, x)
        nats = torch.zeros(())
        for item, length in enumerate(lengths):
            alone, frames = x[item : item + 1, :, :length], -(-length // BLOCK)
            single = vae(alone, sample=True, generators=generators(0, items=1, first=item))
            assert torch.allclose(out.moments[0][item, :, :frames], single.moments[0][0], atol=1e-5)
            assert torch.equal(out.x_hat[item, :, :length], single.x_hat[0])
            assert (out.x_hat[item, :, length:] == -1).all()
            for stream in (out.z, *out.moments):
                assert (stream[item, :, frames:] == 0).all()
            assert out.mask[item].tolist() == [n < frames for n in range(out.z.shape[-1])]
            z = out.z[item : item + 1, :, :frames]
            for whole, part in zip(log_probs, vae.log_probs(z, alone), strict=True):
                assert torch.allclose(whole[item, :length], part[0], atol=1e-5)
            # the noise is drawn for all of a batch's frames: only a full item draws the same alone
            nats += sum(
                -part.gather(2, alone[:, k, :, None]).sum()
                for k, part in enumerate(vae.log_probs(z, alone))
            )
    seconds = 11 / vae.config.token_rate
    assert out.terms["nll"] * 3 * seconds == pytest.approx(float(nats), rel=1e-5)


@pytest.mark.parametrize("decoder", ["parallel", "autoregressive"])
def test_blocks_do_not_see_each_other(decoder: str) -> None:
    vae, x = model(decoder), codes(1, 3 * BLOCK)
    changed = x.clone()
    changed[0, 0, BLOCK] = (x[0, 0, BLOCK] + 1) % SIZES[0]
    with torch.no_grad():
        a, b = vae(x), vae(changed)
        differs = (a.z - b.z).abs().amax((0, 1)) > 1e-6
        assert differs.tolist() == [False, True, False]
        parts = torch.cat([vae.decode(z) for z in a.z.split(1, dim=2)], dim=2)
        assert torch.equal(parts, vae.decode(a.z))
        assert torch.equal(vae.decode(a.z, length=9), parts[..., :9])


def test_terms_are_nats_per_second_of_the_exact_bound() -> None:
    vae, x = model(), codes(2, 2 * BLOCK)
    with torch.no_grad():
        out = vae(x)
        mu, logvar = out.moments
        normal = torch.distributions.Normal(mu, (logvar / 2).exp())
        kl = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum()
        nll = -sum(
            torch.distributions.Categorical(logits=log_p).log_prob(x[:, k]).sum()
            for k, log_p in enumerate(vae.log_probs(out.z, x))
        )
    seconds = 2 * 2 * BLOCK / (16_000 / 250)
    assert float(out.terms["kl"]) == pytest.approx(float(kl) / seconds, rel=1e-5)
    assert float(out.terms["nll"]) == pytest.approx(float(nll) / seconds, rel=1e-5)
    assert vae.config.frame_rate == 16 and vae.hop_length == 1_000


def test_distributions_sum_to_one_and_the_likeliest_codes_are_decoded() -> None:
    for decoder in ("parallel", "autoregressive"):
        vae, z = model(decoder), torch.randn(2, 8, 3)
        x = vae.decode(z)
        with torch.no_grad():
            for k, log_p in enumerate(vae.log_probs(z, x)):
                assert torch.allclose(log_p.exp().sum(-1), torch.ones(2, 12), atol=1e-5)
                assert torch.equal(log_p.argmax(-1), x[:, k])


def test_word_dropout_hides_codes_from_the_autoregressive_decoder_in_training_only() -> None:
    x = codes(2, 8)

    def nll(vae: TokenTransformer, first: int = 0) -> float:
        torch.manual_seed(first)
        with torch.no_grad():
            return float(vae(x, sample=True, generators=generators(0, items=2)).terms["nll"])

    hidden = model("autoregressive", word_dropout=0.5)
    never, always = (model("autoregressive", word_dropout=share) for share in (0.0, 1.0))
    assert nll(hidden) == nll(never) == nll(always)
    dropped = nll(hidden.train())
    assert dropped != nll(never.train()) == nll(never.eval())
    assert nll(hidden, first=1) == dropped  # drawn from the items' generators
    with torch.no_grad():  # all hidden: nothing of x but z reaches the decoder
        always.train()
        z, blind = torch.zeros(2, 8, 2), always._hidden(x, ())
        for a, b in zip(
            always.log_probs(z, x, blind), always.log_probs(z, x.flip(2), blind), strict=True
        ):
            assert torch.equal(a, b)


def test_codes_that_cannot_be_are_refused() -> None:
    vae = model()
    for wrong in (codes(1, 4)[:, :1], codes(1, 4).float(), codes(1, 4)[..., :0], codes(1, 4)[0]):
        with pytest.raises(LatentError, match=r"codes are int64 \[batch, 2, frames\], got"):
            vae.encode(wrong)
    x = codes(1, 4)
    x[0, 1, 2] = 3
    with pytest.raises(LatentError, match="codebook 1 has the codes 0 to 2, got 3"):
        vae.encode(x)
    for wrong in (-1, -7):
        x[0, 1, 2] = wrong
        with pytest.raises(LatentError, match="a frame lacks some of its codes"):
            vae.encode(x)
    with pytest.raises(LatentError, match="a latent is"):
        vae.log_probs(torch.zeros(1, 7, 1), codes(1, 4))


def test_configs_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"size must be one of \[0, 1, 2, 3, 4\], got 9"):
        resolve("token_transformer", {"size": 9})
    with pytest.raises(ConfigError, match="a codebook has at least 1 code, got 0"):
        model(codebook_sizes=(4, 0))
    with pytest.raises(ConfigError, match="bottleneck"):
        model(bottleneck={"kind": "fsq"})


def test_a_short_history_is_what_the_decoder_remembers() -> None:
    vae, x = model("autoregressive", history=1), codes(1, BLOCK)
    other = x.clone()
    other[0, :, 0] = (x[0, :, 0] + 1) % torch.tensor(SIZES)
    z = torch.zeros(1, 8, 1)
    with torch.no_grad():
        for a, b in zip(vae.log_probs(z, x), vae.log_probs(z, other), strict=True):
            assert not torch.allclose(a[0, 1], b[0, 1])
            assert torch.equal(a[0, 2:], b[0, 2:])
    assert math.isclose(vae.config.token_rate, 64.0)
