"""The spectrogram VAE: any length comes back or one length is taken, a map is a map, and both inverses play."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import audiovae
from audiovae.audio.compare import mel_distance
from audiovae.errors import AudioError, ConfigError
from audiovae.models import SpecConv, build, resolve
from audiovae.nn.noise import generators
from audiovae.streaming import decode_blocks, reconstruct_blocks
from audiovae.training.objective import Objective, ObjectiveConfig
from audiovae.training.schedules import Progress

VARIANTS = {
    "stereo": {},
    "mono": {"channels": 1},
    "magnitude": {"features": "magnitude", "latent_dim": 16},
    "odd strides": {"strides": ((3, 3), (2, 4))},
    "deep": {"depth": 2},
    "griffin_lim": {"inverse": "griffin_lim", "iterations": 2},
    "half overlap": {"frame_hop": 64, "strides": ((2, 2), (2, 1))},
}
CLIP = {"clip_seconds": 0.05, "sample_rate": 8_000, "channels": 1}  # 400 samples of 128 a column
RATE = 8_000


def tiny(**options: object) -> SpecConv:
    torch.manual_seed(0)
    model = build(resolve("spec_conv", {"size": 0, **options}))
    assert isinstance(model, SpecConv)
    return model.eval()


def awake(**options: object) -> SpecConv:
    """In float64, every ReLU open: what can be seen is seen."""
    model = tiny(**options).double()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.constant_(module.bias, 9.0)
    return model


def noise(*shape: int) -> Tensor:
    return 0.3 * torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
@torch.no_grad()
def test_every_length_comes_back_whole(options) -> None:
    model = tiny(**options)
    hop = model.hop_length
    for length in (1, hop - 1, hop, hop + 1, 5 * hop + 3):
        x = noise(2, model.channels, length)
        out = model(x)
        assert out.x_hat.shape == x.shape
        assert out.z.shape[-1] == -(-length // hop)
        assert out.x_hat.isfinite().all()


@pytest.mark.parametrize("options", [*VARIANTS.values(), CLIP], ids=[*VARIANTS, "clip"])
@torch.no_grad()
def test_a_batch_equals_its_single_items_unless_it_trains(options) -> None:
    model = tiny(**options)
    clips = 1 if model.config.clip_seconds else 7
    x = noise(3, model.channels, clips * model.hop_length)
    together, apart = model(x).x_hat, torch.cat([model(item[None]).x_hat for item in x])
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-5 * together.abs().max().item())
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model(x)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    model.train()
    together, apart = model(x).z, torch.cat([model(item[None]).z for item in x])
    assert (together - apart).abs().max() > 1e-3 * together.abs().max()
    changed = {name for name, b in model.named_buffers() if not torch.equal(b, before[name])}
    assert changed == {name for name in before if "running" in name or "num_batches" in name}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
def test_a_latent_frame_sees_its_context_and_no_more(options) -> None:
    model = awake(**options)
    context, hop = model.encoder_context, model.hop_length
    middle = context.left // hop + 2
    x = noise(1, model.channels, (middle + context.right // hop + 4) * hop).double()
    with torch.no_grad():
        seen = []
        before = model.encode(x).z[..., middle]
        for start in range(0, x.shape[-1], 8):
            changed = x.clone()
            changed[..., start : start + 8] = 0
            if (model.encode(changed).z[..., middle] != before).any():
                seen.append(start)
    first, last = middle * hop - context.left, (middle + 1) * hop + context.right
    assert seen[0] >= first - 7
    assert seen[-1] < last
    # and what it says is not too much: a Hann window vanishes towards its ends
    assert seen[0] <= first + 16
    assert seen[-1] >= last - 24


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
@torch.no_grad()
def test_a_frame_of_sound_sees_its_latent_context_and_no_more(options) -> None:
    model = awake(**options)
    context, hop = model.decoder_context, model.hop_length
    middle = context.left + 1
    z = noise(1, model.latent_dim, middle + context.right + 2).double()
    whole = model.decode(z)[..., middle * hop : (middle + 1) * hop]
    seen = []
    for frame in range(z.shape[-1]):
        changed = z.clone()
        changed[..., frame] *= -2
        if (model.decode(changed)[..., middle * hop : (middle + 1) * hop] != whole).any():
            seen.append(frame)
    assert seen == list(range(middle - context.left, middle + context.right + 1))


def test_griffin_lim_in_chunks_equals_griffin_lim_in_one_piece() -> None:
    """In float64: the iterations make the rounding of a float32 thousands of times larger."""
    model = tiny(inverse="griffin_lim", iterations=3, channels=1).double()
    z = noise(model.latent_dim, 40).double()
    whole = model.decode(z[None])[0].detach()
    chunks = torch.cat(list(decode_blocks(model, z.split(7, dim=1), chunk_frames=5)), 1)
    torch.testing.assert_close(chunks, whole, rtol=0, atol=1e-5 * whole.abs().max().item())


def test_the_latent_is_a_map_of_channels_by_frequency() -> None:
    """The bins of the map hear what lies at their own height of the spectrogram and next to it."""
    model = awake(n_mels=32, win_length=512, frame_hop=128, channels=1)
    assert model.config.latent_bins == 8
    bands = noise(1, 1, 32, 40).double().requires_grad_()
    h = model.moments(model.encoder(bands)).flatten(1, 2)[:, : model.latent_dim]  # mu
    top = h.unflatten(1, (-1, 8))[:, :, -1]
    (gradient,) = torch.autograd.grad(top.square().sum(), bands)
    heard = gradient.abs().amax((0, 1, 3)) > 0
    assert not heard[:12].any()
    assert heard[-4:].all()


def test_a_clip_model_takes_its_length_and_no_other() -> None:
    model = tiny(**CLIP)
    assert model(noise(2, 1, 400)).x_hat.shape == (2, 1, 400)
    expected = (
        r"clips of exactly 400 samples \(0\.05 s at 8000 Hz\), got {}; cut or pad the sound to that length "
        r"\(in training: set data\.segment_seconds and data\.valid_seconds to 0\.05\), or use a model without clip_seconds"
    )
    for length in (1, 399, 401, 800):
        with pytest.raises(AudioError, match=expected.format(length)):
            model.encode(noise(1, 1, length))
    with pytest.raises(AudioError, match="got 399"):
        list(reconstruct_blocks(model, [noise(1, 399)]))
    blocks = noise(1, 400).split(150, dim=1)
    assert torch.cat(list(reconstruct_blocks(model, blocks)), 1).shape == (1, 400)


@torch.no_grad()
def test_frames_of_a_clip_latent_are_clips_one_after_the_other() -> None:
    model = tiny(**CLIP)
    z = noise(2, model.latent_dim, 3)
    apart = [model.decode(z[..., clip : clip + 1]) for clip in range(3)]
    torch.testing.assert_close(model.decode(z), torch.cat(apart, -1), rtol=0, atol=1e-5)
    assert model.decoder_context == model.encoder_context == (0, 0)


def test_the_clips_latent_is_linear_in_the_flattened_map() -> None:
    model = tiny(**CLIP)
    x = noise(2, 1, 400)
    maps = []
    model.encoder.register_forward_hook(lambda *seen: maps.append(seen[2]))
    z = model.encode(x).z
    projection = model.bottleneck.moments
    by_hand = maps[0].flatten(1) @ projection.weight[: model.latent_dim, :, 0].mT
    by_hand = by_hand + projection.bias[: model.latent_dim]
    torch.testing.assert_close(z[..., 0], by_hand)


@pytest.mark.parametrize("options", [{}, CLIP], ids=["any length", "clip"])
def test_the_spectrogram_term_trains_every_part_but_the_head(options) -> None:
    model = tiny(inverse="griffin_lim", **options).train()
    x = noise(2, model.channels, model.hop_length)
    out = model(x, sample=True, generators=generators(0, items=2))
    assert not out.x_hat.requires_grad
    out.terms["spectrogram"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        again = model.eval()(x)
        padded = torch.nn.functional.pad(x, (0, -x.shape[-1] % model.config.grid))
        by_hand = (model.spectrogram(again.z) - model.bands(padded)).abs().mean()
    torch.testing.assert_close(again.terms["spectrogram"], by_hand)


def test_silence_has_finite_gradients() -> None:
    model = tiny().train()
    out = model(torch.zeros(2, 2, 1000), sample=True)
    (out.x_hat.abs().mean() + out.terms["spectrogram"] + out.terms["kl"]).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@torch.no_grad()
def test_one_model_plays_by_both_inverses() -> None:
    model = tiny(channels=1)
    z = model.encode(noise(1, 1, 2_000)).z
    learned, reach = model.decode(z), model.decoder_context
    model.inverse = "griffin_lim"
    played = model.decode(z)
    assert (played - learned).abs().max() > 0.01
    assert model.decoder_context.left > reach.left
    model.inverse = "learned"
    assert torch.equal(model.decode(z), learned)
    with pytest.raises(ConfigError, match="one of griffin_lim, learned, got 'vocoder'"):
        model.inverse = "vocoder"
    with pytest.raises(
        ConfigError, match=r"one of griffin_lim, got 'learned'; a learned one comes"
    ):
        tiny(inverse="griffin_lim").inverse = "learned"


def chords(count: int) -> Tensor:
    """Dying chords with harmonics, each with phases of its own.  [count, 1, 4096]"""
    t, generator = torch.arange(4_096) / RATE, torch.Generator().manual_seed(0)
    partials = [(f * k, k) for f in (220, 277.18, 329.63) for k in (1, 2, 3)]
    phases = 2 * math.pi * torch.rand(count, len(partials), generator=generator)
    tones = [
        torch.sin(2 * math.pi * f * t + phases[:, i, None]) / k for i, (f, k) in enumerate(partials)
    ]
    return (0.1 * torch.stack(tones).sum(0) * torch.exp(-3 * t))[:, None]


@pytest.mark.parametrize("inverse", ["learned", "griffin_lim"])
def test_a_chord_is_learned_with_the_familys_own_objective(inverse: str) -> None:
    model = tiny(
        sample_rate=RATE, channels=1, win_length=256, frame_hop=64, n_mels=32,
        head_width=48, head_depth=2, inverse=inverse,
    )  # fmt: skip
    x = chords(4)
    with torch.no_grad():
        untrained = mel_distance(model(x).x_hat, x, RATE).item()
    objective = Objective(ObjectiveConfig(), RATE, model.config.default_objective)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(60):
        eps = generators(0, step, items=4)
        out = model.train()(x, sample=True, generators=eps)
        optimizer.zero_grad()
        objective(out, x, Progress(step, 60, 0)).total.backward()
        optimizer.step()
    with torch.no_grad():
        out = model.eval()(x)
    assert out.terms["spectrogram"] < 0.4  # 8 dB, over 100 dB from the floor to the loudest
    assert mel_distance(out.x_hat, x, RATE).item() < 0.4 * untrained


def trained(folder: Path, seconds: float, **options: object) -> SpecConv:
    """A run of two steps on made-up tones of this length."""
    run = audiovae.train(
        model={"preset": "spec_conv", "size": 0, "sample_rate": RATE, "channels": 1, **options},
        data={"preset": "synth", "segment_seconds": seconds, "valid_crops": 2},
        out=folder,
        quiet=True,
        steps=2,
        batch_size=2,
        tensorboard=False,
    )
    model = audiovae.load(run)
    assert isinstance(model, SpecConv)
    return model


def test_a_trained_run_reconstructs_by_both_inverses(tmp_path: Path) -> None:
    model = trained(tmp_path / "run", 0.1)
    x = noise(1, 700)
    latent = audiovae.encode(model, x, sample_rate=RATE)
    sounds = []
    for inverse in ("learned", "griffin_lim"):
        sound = audiovae.reconstruct(model, x, sample_rate=RATE, inverse=inverse)
        decoded = audiovae.decode(model, latent, inverse=inverse)
        assert torch.equal(sound.samples, decoded.samples)
        assert model.inverse == "learned"  # its own way again
        sounds.append(sound.samples)
    assert sounds[0].shape == sounds[1].shape == (1, 700)
    assert not torch.allclose(*sounds)
    assert torch.equal(sounds[0], audiovae.reconstruct(model, x, sample_rate=RATE).samples)


def test_a_model_without_that_inverse_says_so(tmp_path: Path) -> None:
    spectra = trained(tmp_path / "run", 0.1, inverse="griffin_lim")
    with pytest.raises(
        ConfigError, match=r"inverse is one of griffin_lim, got 'learned'; .* training"
    ):
        audiovae.reconstruct(spectra, noise(1, 700), sample_rate=RATE, inverse="learned")
    frames = build(resolve("spec_frame", {"size": 0, "sample_rate": RATE, "channels": 1}))
    with pytest.raises(
        ConfigError, match="inverse griffin_lim is for spectrogram VAEs, this model is a spec_f"
    ):
        audiovae.reconstruct(frames, noise(1, 700), sample_rate=RATE, inverse="griffin_lim")


def test_a_clip_model_is_trained_on_clips_and_reconstructs_clips(tmp_path: Path) -> None:
    model = trained(tmp_path / "run", 0.05, **CLIP, inverse="griffin_lim")
    assert audiovae.reconstruct(model, noise(1, 400), sample_rate=RATE).samples.shape == (1, 400)
    with pytest.raises(AudioError, match="exactly 400 samples"):
        audiovae.reconstruct(model, noise(1, 700), sample_rate=RATE)
    with pytest.raises(
        AudioError, match=r"got 800; .* set data\.segment_seconds and data\.valid_seconds to 0\.05"
    ):
        trained(tmp_path / "longer", 0.1, **CLIP)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frame_hop": 50}, r"win_length must be a multiple of frame_hop \(50\), at least twice"),
        ({"frame_hop": 128}, r"win_length must be a multiple of frame_hop \(128\), at least twice"),
        (
            {"strides": ((4, 1), (1, 2))},
            r"frame_hop times the strides in time \(64\) must be .* of win_length \(128\)",
        ),
        ({"widths": (2, 4)}, "widths are the first and one a stage, 3 in all, got 2"),
        ({"n_mels": 64}, "of 64 mel bands are narrower than a bin of win_length 128"),
        ({"latent_dim": 7}, "latent_dim must be a multiple of the 2 frequency bins .*, got 7"),
        ({"size": 9}, "size must be one of .*got 9"),
    ],
)
def test_a_config_that_cannot_be_is_refused(options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve("spec_conv", {"size": 0, **options})


def test_presets_are_what_they_say() -> None:
    def weights(**options: object) -> int:
        with torch.device("meta"):
            return sum(p.numel() for p in build(resolve("spec_conv", options)).parameters())

    default = resolve("spec_conv", {"sample_rate": 24_000})
    assert (default.hop_length, default.bottleneck.latent_dim, default.latent_bins) == (
        1024, 128, 8,
    )  # fmt: skip
    assert resolve("spec_conv").frame_rate == pytest.approx(21.53, abs=0.01)
    for clip in ({}, {"clip_seconds": 1.5}):
        assert weights(size=0, sample_rate=24_000, **clip) < 1e5
        sizes = [weights(size=size, **clip) for size in range(6)]
        assert sizes == sorted(sizes)
    assert resolve("spec_conv", {"clip_seconds": 1.5}).hop_length == 66_150
    assert resolve("spec_conv", {"inverse": "griffin_lim"}).default_objective == "spectrogram"
