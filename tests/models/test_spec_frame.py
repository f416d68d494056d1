"""The default family: every length comes back whole, nothing sees further than it says, chunks equal the whole."""

import pytest
import torch

from audiovae.audio.stereo import mid_side
from audiovae.errors import AudioError, ConfigError, LatentError
from audiovae.models import build, resolve
from audiovae.models.envelope import Envelope

VARIANTS = {
    "stereo": {},
    "mono": {"channels": 1},
    "causal": {"causal": True},
    "mdct": {"front_end": "mdct"},
    "mdct causal": {"front_end": "mdct", "causal": True},
    "complex": {"head": "complex"},
    "polar": {"head": "polar"},
    "one frame": {"stride": 1, "depth": 2, "phase": "frame"},
    "two windows": {"stride": 8, "latent_depth": 2},
    "half overlap": {"win_length": 64, "kernel_size": 4},
}


def tiny(**options):
    torch.manual_seed(0)
    model = build(resolve("spec_frame", {"size": 0, **options}))
    for parameter in model.parameters():  # untrained gains are small: make everything matter
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def noise(*shape: int) -> torch.Tensor:
    return 0.3 * torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
@torch.no_grad()
def test_every_length_comes_back_whole(options):
    model = tiny(**options)
    hop = model.hop_length
    for length in (1, 2, hop - 1, hop, hop + 1, 5 * hop + 3):
        x = noise(2, model.channels, length)
        out = model(x)
        assert out.x_hat.shape == x.shape
        assert out.z.shape[-1] == -(-length // hop)
        assert out.x_hat.isfinite().all()


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
@torch.no_grad()
def test_a_batch_equals_its_single_items(options):
    model = tiny(**options)
    x = noise(3, model.channels, 7 * model.hop_length)
    together, apart = model(x).x_hat, torch.cat([model(item[None]).x_hat for item in x])
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-5 * together.abs().max().item())


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
def test_a_latent_frame_sees_its_context_and_no_more(options):
    model = tiny(**options)
    context, hop = model.encoder_context, model.hop_length
    middle = context.left // hop + 2
    length = (middle + context.right // hop + 4) * hop
    x = noise(1, model.channels, length).requires_grad_()
    model.encode(x).z[..., middle].square().sum().backward()
    seen = x.grad.abs().amax((0, 1)).nonzero().flatten()
    assert seen[0] >= middle * hop - context.left
    assert seen[-1] < (middle + 1) * hop + context.right
    # and what it says is not too much: a Hann window is zero at its first sample only
    assert seen[0] <= middle * hop - context.left + 1
    assert seen[-1] >= (middle + 1) * hop + context.right - 2


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
def test_a_frame_of_sound_sees_its_latent_context_and_no_more(options):
    model = tiny(**options)
    context, hop = model.decoder_context, model.hop_length
    middle = context.left + 2
    z = noise(1, model.latent_dim, middle + context.right + 3).requires_grad_()
    model.decode(z)[..., middle * hop : (middle + 1) * hop].square().sum().backward()
    seen = z.grad.abs().amax((0, 1)).nonzero().flatten().tolist()
    assert seen == list(range(middle - context.left, middle + context.right + 1))


@torch.no_grad()
def test_delay_is_how_far_the_future_reaches_back():
    for causal in (False, True):
        model = tiny(causal=causal)
        x = noise(1, 2, 60 * model.hop_length)
        changed, t = x.clone(), 30 * model.hop_length
        changed[..., t:] = 0
        differs = (model(x).x_hat - model(changed).x_hat).abs().amax((0, 1)) > 0
        first = int(differs.nonzero()[0])
        assert first >= t - model.delay
        if (
            causal
        ):  # no block looks ahead: what is left is the window and the latent frame's own hop
            assert model.delay < model.config.window + 2 * model.hop_length


@torch.no_grad()
def test_silence_and_full_scale_stay_finite():
    model = tiny()
    for x in (torch.zeros(1, 2, 500), torch.ones(1, 2, 500), 100 * noise(1, 2, 500)):
        assert model(x).x_hat.isfinite().all()


def test_gradients_of_silence_are_finite():
    model = tiny().train()
    out = model(torch.zeros(1, 2, 1000), sample=True)
    (out.x_hat.abs().mean() + out.terms["kl"]).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@torch.no_grad()
def test_features_and_sound_are_inverse():
    model = tiny(head="complex")
    x = noise(2, 2, 10 * model.hop_length)
    torch.testing.assert_close(model.sound(model.features(x)), x, rtol=0, atol=1e-4)


@torch.no_grad()
def test_gain_times_shape_is_the_sound():
    model = tiny()
    x = noise(2, 2, 10 * model.hop_length)
    n_bins, bands = model.bank.n_bins, model.config.bands
    features = model.features(x).unflatten(2, (2, -1)).transpose(1, 2)  # [B, C, F, 2 N + bands]
    envelope = features[..., 2 * n_bins :]
    spectrum = model.bank(mid_side(x))
    gain = model.envelope.gain(envelope)
    shape = [plane / gain for plane in (spectrum.real, spectrum.imag)]
    said = torch.cat([*shape, envelope], dim=3).transpose(1, 2).flatten(2)
    torch.testing.assert_close(model.sound(said), x, rtol=0, atol=1e-5)
    # and the gain is the spectrum's level: shape is about 1 in each band
    loudness = torch.stack(shape).square().sum(0) @ model.envelope.hats.mT
    level = loudness / model.envelope.hats.sum(1)
    assert 0.5 < level.mean() < 2
    assert envelope.shape[-1] == bands


@torch.no_grad()
def test_a_fresh_decoder_says_the_envelope_of_music():
    model = build(resolve("spec_frame", {"size": 0}))
    said = model.speak(torch.randn(1, 5, model.config.width)).unflatten(2, (2, -1))
    assert (said[..., -model.config.bands :] == 0).all()
    assert (said[..., : -model.config.bands] != 0).all()


@pytest.mark.parametrize(("bands", "n_bins"), [(32, 513), (8, 65), (1, 5), (2, 2), (65, 65)])
def test_bands_of_the_envelope_share_every_bin(bands, n_bins):
    envelope = Envelope(bands, n_bins, 44_100)
    assert (envelope.hats >= 0).all()
    torch.testing.assert_close(envelope.hats.sum(0), torch.ones(n_bins))
    assert (envelope.hats.sum(1) >= 1 - 1e-4).all()  # none is empty
    flat = envelope.gain(envelope(torch.full((1, 1, n_bins), 0.04)))
    torch.testing.assert_close(flat, torch.full((1, 1, n_bins), 0.2))


@torch.no_grad()
def test_a_louder_sound_has_a_higher_envelope_and_the_gain_undoes_it():
    envelope = Envelope(32, 513, 44_100)
    power = 0.1 + torch.rand(1, 3, 513, generator=torch.Generator().manual_seed(0))
    quiet, loud = envelope.gain(envelope(power)), envelope.gain(envelope(100 * power))
    torch.testing.assert_close(loud, 10 * quiet)


@torch.no_grad()
@pytest.mark.parametrize("channels", [1, 2])
def test_calibration_standardises_the_envelope_of_each_channel(channels):
    model = tiny(channels=channels)
    hop = model.hop_length
    sounds = [0.01 * (1 + i) * noise(4, channels, 40 * hop) for i in range(3)]
    model.calibrate(iter(sounds))
    bands = model.config.bands
    features = torch.cat([model.features(x) for x in sounds]).unflatten(2, (channels, -1))
    envelope = features[..., -bands:].flatten(0, 1)
    torch.testing.assert_close(envelope.mean(0), torch.zeros(channels, bands), rtol=0, atol=1e-4)
    assert (envelope.std(0) <= 1 + 1e-4).all()  # less where a band hardly changes
    power = model.spectrum(sounds[0])[1]
    fresh = tiny(channels=channels).envelope
    torch.testing.assert_close(
        model.envelope.gain(model.envelope(power)), fresh.gain(fresh(power)), rtol=1e-4, atol=0
    )


@torch.no_grad()
def test_calibration_copes_with_an_empty_side_channel_and_leaves_out_what_is_not_finite():
    model = tiny()
    mono = noise(2, 1, 20 * model.hop_length).repeat(1, 2, 1)
    model.calibrate([mono])
    assert (model.envelope.spread >= 0.5).all()
    assert model(mono).x_hat.isfinite().all()
    clean = model.envelope.centre.clone()
    model.calibrate([mono, torch.full_like(mono, torch.nan)])
    assert torch.equal(model.envelope.centre, clean)
    model.calibrate([torch.full_like(mono, torch.inf)])
    assert torch.equal(model.envelope.centre, clean)


def test_presets_are_what_the_issue_asks_for():
    def weights(model):
        return sum(p.numel() for p in model.parameters())

    default = build(resolve("spec_frame"))
    assert weights(default) >= 10e6
    assert (default.sample_rate, default.channels, default.latent_dim) == (44_100, 2, 64)
    assert default.frame_rate == pytest.approx(43.07, abs=0.01)
    assert weights(tiny()) < 1e5
    assert resolve("spec_frame", {"frame_rate": 21.5}).frame_rate == pytest.approx(21.53, abs=0.01)
    speech = resolve("spec_frame", {"sample_rate": 24_000, "channels": 1})
    assert 40 < speech.frame_rate < 50
    sizes = [weights(build(resolve("spec_frame", {"size": size}))) for size in range(4)]
    assert sizes == sorted(sizes)


def test_borders_refuse_other_shapes():
    model = tiny()
    with pytest.raises(AudioError, match=r"has 2 channel.*sound has 1"):
        model.encode(torch.zeros(1, 1, 100))
    with pytest.raises(AudioError, match="0 samples"):
        model.encode(torch.zeros(1, 2, 0))
    with pytest.raises(AudioError, match=r"batch, channels, samples.*\(2, 100\)"):
        model.encode(torch.zeros(2, 100))
    with pytest.raises(AudioError, match=r"floats.*int64"):
        model.encode(torch.zeros(1, 2, 100, dtype=torch.int64))
    with pytest.raises(LatentError, match=r"batch, 8, frames.*\(1, 9, 4\)"):
        model.decode(torch.zeros(1, 9, 4))


def test_more_bands_than_bins_are_refused():
    with pytest.raises(ConfigError, match="bands must be at most half a window"):
        resolve("spec_frame", {"size": 0, "bands": 65})


@pytest.mark.parametrize("front_end", ["stft", "mdct"])
def test_in_bf16_the_net_rounds_and_the_filter_bank_does_not(front_end: str) -> None:
    """A bank in bf16 would put rounding at -50 dB under everything, and the envelope cannot take it."""
    torch.manual_seed(0)
    model = build(resolve("spec_frame", {"size": 0, "front_end": front_end}))
    x = 0.3 * torch.randn(2, 2, 24 * model.hop_length)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        spectrum = model.bank(x)
        assert (model.bank.inverse(spectrum) - x)[..., 256:-256].abs().max() < 1e-5
    exact = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(x)
    assert 0 < (rough.z - exact.z).abs().max() < 0.05 * exact.z.abs().max()
    rough.x_hat.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
