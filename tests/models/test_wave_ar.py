"""WaveVAE: an exact likelihood, a latent that sees what it says, and a decoder that says the same in any pieces."""

import math

import pytest
import torch

from audiovae.bottlenecks import GaussianConfig
from audiovae.config import parse
from audiovae.errors import AudioError, ConfigError
from audiovae.models import wave_kernel
from audiovae.models.base import UNLIMITED, Context
from audiovae.models.wave_ar import WaveVAE, WaveVAEConfig, wave_vae
from audiovae.nn.next_sample import compress
from audiovae.nn.wavenet import Stepper
from audiovae.streaming import decode_blocks
from audiovae.training.objective import Objective, ObjectiveConfig
from audiovae.training.schedules import Progress

OUTPUTS = ("mu_law", "logistic_mixture")


def tiny(**options):
    torch.manual_seed(0)
    model = WaveVAE(wave_vae(0, **options))
    for parameter in model.parameters():  # make everything matter
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def noise(*shape, seed=1):
    return 0.3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def latent(model, frames, batch=1):
    return torch.randn(batch, model.latent_dim, frames, generator=torch.Generator().manual_seed(2))


@pytest.fixture(params=["kernel", "torch"])
def voice(request, monkeypatch):
    """With the compiled kernel, where there is a compiler, and without."""
    if request.param == "torch":
        monkeypatch.setattr(wave_kernel, "library", lambda: None)


@pytest.mark.parametrize("output", OUTPUTS)
@torch.no_grad()
def test_every_length_comes_back_whole(output):
    model = tiny(output=output)
    hop = model.hop_length
    for length in (1, 2, hop - 1, hop, hop + 1, 3 * hop + 3):
        x = noise(2, 1, length)
        out = model(x)
        assert out.x_hat.shape == x.shape == model.decode(out.z, length).shape
        assert out.z.shape[-1] == -(-length // hop)
        assert out.x_hat.isfinite().all() and out.x_hat.abs().max() <= 1


@pytest.mark.parametrize("output", OUTPUTS)
@torch.no_grad()
def test_the_likelihood_is_that_of_hearing_sample_after_sample(output):
    """Teacher-forced in one pass, and one step at a time: the same nats per second, over the clip's own seconds."""
    model = tiny(output=output)
    x = noise(2, 1, 3 * model.hop_length - 5)
    out = model(x)
    values = model.family.quantise(x[:, 0])
    condition, stepper = model.condition(out.z), Stepper(model.decoder, 2)
    heard, total = torch.zeros(2), torch.zeros(2, dtype=torch.float64)
    for t in range(x.shape[-1]):
        said = stepper.step(heard, condition[..., t // model.hop_length])
        total += model.family.log_prob(said[..., None], values[:, t : t + 1])[:, 0].double()
        heard = compress(values[:, t])
    expected = -total.mean() * model.sample_rate / x.shape[-1]
    assert out.terms["nll"].item() == pytest.approx(expected.item(), rel=1e-4)


@torch.no_grad()
def test_a_net_that_knows_nothing_pays_log_256_a_sample():
    model = tiny()
    for parameter in model.decoder.last.parameters():
        parameter.zero_()
    for length in (1, 100, 1000):
        nll = model(noise(1, 1, length)).terms["nll"]
        assert nll.item() == pytest.approx(math.log(256) * model.sample_rate, rel=1e-5)


@torch.no_grad()
def test_expected_samples_hear_the_true_ones_before_them_and_no_later_one():
    model = tiny()
    x, t = noise(1, 1, 300), 200
    z = model.encode(x).z
    changed = x.clone()
    changed[..., t] += 0.2
    differs = (model.predict(x, z) - model.predict(changed, z)).abs().amax((0, 1)) > 0
    first, last = differs.nonzero().flatten()[[0, -1]].tolist()
    assert first == t + 1
    assert last <= t + 1 + sum(model.decoder.dilations)
    expected = torch.einsum("bpt,p->bt", model.predict(x, z).softmax(1), model.family.values())
    torch.testing.assert_close(model(x).x_hat[:, 0], expected)


def test_a_latent_frame_sees_its_context_and_no_more():
    model = tiny()
    context, hop, middle = model.encoder_context, model.hop_length, 3
    assert context == Context(7, 7)  # kernel 3; dilations 1, 2, 1, 2
    x = noise(1, 1, 7 * hop).requires_grad_()
    model.encode(x).z[..., middle].square().sum().backward()
    seen = x.grad[0, 0].nonzero().flatten()
    assert seen[0] == middle * hop - context.left
    assert seen[-1] == (middle + 1) * hop - 1 + context.right
    assert len(seen) > hop / 2


@pytest.mark.parametrize("output", OUTPUTS)
@torch.no_grad()
def test_a_batch_equals_its_single_items(output):
    model = tiny(output=output)
    x, z = noise(3, 1, 150), latent(model, 3, batch=3)
    for code, given in ((lambda x: model(x).x_hat, x), (lambda x: model.encode(x).z, x)):
        apart = torch.cat([code(item[None]) for item in given])
        torch.testing.assert_close(code(given), apart, rtol=1e-5, atol=1e-5)
    assert torch.equal(model.decode(z), torch.cat([model.decode(item[None]) for item in z]))


@pytest.mark.usefixtures("voice")
@pytest.mark.parametrize("chunk_frames", [1, 3, None])
def test_decoding_in_pieces_equals_decoding_in_one(chunk_frames):
    """The speaker carries what it heard over: every sample is equal, in memory that does not grow."""
    model = tiny()
    z = latent(model, 7)
    whole = model.decode(z)[0]
    blocks = z[0].split([4, 1, 2], dim=1)
    chunks = list(decode_blocks(model, blocks, chunk_frames=chunk_frames))
    assert whole.std() > 0.05
    assert torch.equal(torch.cat(chunks, 1), whole)
    if chunk_frames:
        assert max(chunk.shape[1] for chunk in chunks) == chunk_frames * model.hop_length


@pytest.mark.usefixtures("voice")
def test_decode_is_a_function_of_the_latent_and_hears_no_later_frame():
    model = tiny()
    z = latent(model, 5)
    torch.manual_seed(7)
    once = model.decode(z)
    torch.manual_seed(8)
    assert torch.equal(model.decode(z), once)
    changed = z.clone()
    changed[..., 3:] += 1
    differs = (model.decode(changed) != once)[0, 0].nonzero().flatten()
    assert 3 * model.hop_length <= differs[0] < 4 * model.hop_length
    assert not once.requires_grad


def test_torch_says_what_the_kernel_says(monkeypatch):
    model = tiny()
    z = latent(model, 4, batch=2)
    compiled = model.decode(z)
    monkeypatch.setattr(wave_kernel, "library", lambda: None)
    # a tie within the last digit may part them; with these numbers there is none
    torch.testing.assert_close(model.decode(z), compiled, rtol=0, atol=1e-6)


@pytest.mark.usefixtures("voice")
def test_other_numbers_say_something_else_and_no_temperature_says_one_thing():
    model = tiny()
    z = latent(model, 3)

    def said(seed, **options):
        generators = [torch.Generator().manual_seed(seed)]
        return model.speaker(1, generators=generators, **options).go_on(z)

    assert torch.equal(said(1), said(1)) and not torch.equal(said(1), said(2))
    assert torch.equal(said(1, temperature=0), said(2, temperature=0))
    assert torch.equal(said(1, temperature=0.5), said(1, temperature=0.5))


@pytest.mark.skipif(wave_kernel.library() is None, reason="the kernel needs a C compiler")
def test_under_autocast_the_weights_are_bf16():
    model = tiny()
    z = latent(model, 8)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model.decode(z)
    assert rounded.dtype == torch.float32
    with torch.no_grad():
        for weight in model.decoder.parameters():
            if weight.ndim == 3 and weight is not model.decoder.first.weight:
                weight.copy_(weight.bfloat16())
    torch.testing.assert_close(model.decode(z), rounded, rtol=0, atol=1e-6)


def test_the_objective_is_the_negative_elbo():
    model = tiny().train()
    x = noise(2, 1, 4 * model.hop_length)
    objective = Objective(ObjectiveConfig(), model.sample_rate, model.config.default_objective)
    assert objective.is_elbo
    out = model(x, sample=True)
    weighed = objective(out, x, Progress(0, 1, 0))
    expected = out.terms["nll"] + out.terms["kl"]
    assert weighed.total.item() == pytest.approx(expected.item(), rel=1e-5)
    weighed.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def kl_after_training(free_bits):
    """Nats a frame after learning a sound that its own past foretells, with a KL that is dear."""
    torch.manual_seed(0)
    shape = wave_vae(0, latent_dim=2).model_dump() | {"layers": 2, "encoder_layers": 1}
    model = WaveVAE(parse(WaveVAEConfig, shape)).train()
    torch.nn.init.constant_(model.bottleneck.moments.bias, -3.0)  # logvar: half way to the prior
    config = ObjectiveConfig(free_bits=free_bits, beta={"high": 20.0})
    objective = Objective(config, model.sample_rate, "likelihood")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.8, 0.99))
    time = torch.arange(2 * model.hop_length)
    for step in range(100):
        x = 0.5 * torch.sin(2 * math.pi * (time / 32 + torch.rand(4, 1, 1)))
        weighed = objective(model(x, sample=True), x, Progress(step, 100, 0))
        optimizer.zero_grad()
        weighed.total.backward()
        optimizer.step()
    return float(weighed.raw["kl"].detach()) / model.frame_rate


def test_free_bits_keep_the_latent_in_use():
    """A decoder that hears its own past lets go of z; free bits hold it: 1 bit in each of 2 dimensions is 1.39 nats."""
    assert kl_after_training(0.0) < 0.1
    assert kl_after_training(1.0) > 0.8 * 2 * math.log(2)


def test_presets_are_what_they_say():
    test_model, default = WaveVAE(wave_vae(0)), wave_vae()
    assert sum(p.numel() for p in test_model.parameters()) < 100_000
    assert (default.sample_rate, default.channels) == (24_000, 1)
    assert (default.layers, default.width, default.stride) == (30, 64, 512)
    with torch.device("meta"):
        model = WaveVAE(default)
    assert sum(model.decoder.dilations) + 1 == 3070
    assert model.encoder_context == Context(3070, 3070)
    assert model.decoder_context.left == model.receptive_field == UNLIMITED
    assert model.delay == 511 + 3070
    matrices = [w for name, w in model.decoder.named_parameters() if name.endswith("weight")]
    assert sum(w.numel() for w in matrices) == 30 * 6 * 64**2 + 64**2 + 64 * 256 - 64**2 + 64


def test_other_bottlenecks_fit():
    config = parse(
        WaveVAEConfig,
        wave_vae(0).model_dump() | {"bottleneck": {"kind": "fsq", "levels": (5, 4)}},
    )
    model = WaveVAE(config).eval()
    out = model(noise(1, 1, 300))
    assert out.moments is None and out.codes[0].shape[-1] == 5
    assert torch.equal(model.decode(out.codes), model.decode(out.z))


def test_bad_settings_are_named():
    with pytest.raises(ConfigError, match=r"size must be one of \[0, 1, 2, 3, 4\], got 9"):
        wave_vae(9)
    with pytest.raises(ValueError, match=r"has 1 channel, got 2; .*--per-channel"):
        wave_vae(0, channels=2)
    with pytest.raises(ConfigError, match="temperature must be from 0 on, got -1"):
        tiny().speaker(1, temperature=-1)
    with pytest.raises(AudioError, match=r"the model has 1 channel\(s\), the sound has 2"):
        tiny()(noise(1, 2, 100))
    with pytest.raises(ConfigError, match=r"temperature: .*greater than or equal to 0, got -2"):
        parse(WaveVAEConfig, {"temperature": -2.0})
    assert wave_vae(0, latent_dim=5).bottleneck == GaussianConfig(latent_dim=5)
