"""EnCodec: its bandwidths, its lengths, its segments' loudness, and how far it reaches."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

import audiovae
from audiovae.bottlenecks import Bottled, RVQConfig
from audiovae.checkpoint import save_model
from audiovae.errors import AudioError, ConfigError, LatentError
from audiovae.models.base import UNLIMITED, Autoencoder, Context
from audiovae.models.encodec import Encodec, EncodecConfig, encodec_24k, encodec_48k
from audiovae.nn.noise import generators
from audiovae.nn.seanet import SeanetConfig

RVQ = RVQConfig(latent_dim=4, codebook_size=16, n_codebooks=3)
SEANET = SeanetConfig(width=2, strides=(2, 3), lstm_layers=0, causal=False)
CONFIGS = {
    "24k": encodec_24k(0),
    "48k": encodec_48k(0),
    "no LSTM": EncodecConfig(seanet=SEANET, bottleneck=RVQ),
    "odd segments": EncodecConfig(
        sample_rate=1000,
        channels=2,
        seanet=SEANET,
        bottleneck=RVQ,
        segment_seconds=0.025,
        overlap=0.3,
    ),
    "loudness of the whole": EncodecConfig(seanet=SEANET, bottleneck=RVQ, normalise=True),
}


def model_of(config: EncodecConfig) -> Encodec:
    torch.manual_seed(0)
    return Encodec(config).eval()


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS.keys())
def model(request: pytest.FixtureRequest) -> Encodec:
    return model_of(request.param)


def sound(model: Autoencoder, length: int, items: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return 0.3 * torch.randn(items, model.channels, length, generator=generator)


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def test_published_bandwidths() -> None:
    mono, stereo = encodec_24k(), encodec_48k()
    assert mono.bandwidths == (1.5, 3.0, 6.0, 12.0, 24.0)
    assert [mono.codebooks_at(kbps) for kbps in mono.bandwidths] == [2, 4, 8, 16, 32]
    assert stereo.bandwidths == (3.0, 6.0, 12.0, 24.0)
    assert [stereo.codebooks_at(kbps) for kbps in stereo.bandwidths] == [2, 4, 8, 16]
    assert mono.codebooks_at(0.75) == 1 and mono.codebooks_at(5.0) == 6


@pytest.mark.parametrize("kbps", [0.7, 24.8, math.nan])
def test_a_bandwidth_without_codebooks_is_refused(kbps: float) -> None:
    with pytest.raises(ConfigError, match=f"must be 0.75 to 24 kbit/s, got {kbps:g}"):
        encodec_24k().codebooks_at(kbps)


def test_published_sizes() -> None:
    with torch.device("meta"):
        counts = [sum(p.numel() for p in Encodec(encodec_24k(s)).parameters()) for s in (0, 2, 4)]
        stereo = sum(p.numel() for p in Encodec(encodec_48k()).parameters())
        small = sum(p.numel() for p in Encodec(encodec_48k(0)).parameters())
    assert counts[0] < 100_000 and small < 100_000
    assert counts == sorted(counts)
    assert (counts[2], stereo) == (14_851_810, 14_856_294)


def test_every_length_comes_back_as_it_was(model: Encodec) -> None:
    with torch.inference_mode():
        for length in (1, 2, model.hop_length, model.hop_length + 1, 3 * model.unit.samples + 5):
            out = model(sound(model, length))
            assert out.x_hat.shape == (1, model.channels, length)
            assert out.z.shape == (1, model.latent_dim, model.frames_of(length))
            assert out.x_hat.isfinite().all()


def test_codes_and_latent_are_the_same_sound(model: Encodec) -> None:
    with torch.inference_mode():
        x = sound(model, 3 * model.unit.samples + 5, items=2)
        out = model.encode(x)
        assert torch.equal(model.from_codes(out.codes), out.z)
        assert_close(model.decode(out.codes, x.shape[-1]), model(x).x_hat)
        fewer = (*out.codes[:-1], out.codes[-1][:, :1])
        assert (model.decode(fewer, x.shape[-1]) != model(x).x_hat).any()
    assert [c.shape[1] for c in out.codes] == [len(sizes) for sizes in model.codebook_sizes]


def test_a_batch_equals_its_single_items(model: Encodec) -> None:
    x = sound(model, 2 * model.unit.samples + 3, items=3)
    with torch.inference_mode():
        single = torch.cat([model(item[None]).x_hat for item in x])
        assert_close(model(x).x_hat, single)


@pytest.mark.parametrize("name", ["48k", "loudness of the whole"])
def test_loudness_passes_by_the_codes(name: str) -> None:
    """A sound at a fifth of the level has the same codes but for those of its RMS, and comes back at a fifth."""
    model = model_of(CONFIGS[name])
    x = sound(model, 3 * model.unit.samples + 5)
    with torch.inference_mode():
        loud, soft = model(x), model(x / 5)
    assert torch.equal(loud.codes[1], soft.codes[1])
    assert not torch.equal(loud.codes[0], soft.codes[0])
    assert_close(5 * soft.x_hat, loud.x_hat)
    torch.testing.assert_close(soft.z[:, -1], loud.z[:, -1] - math.log(5))
    assert torch.equal(soft.z[:, :-1], loud.z[:, :-1])


def test_silence_stays_silence() -> None:
    model = model_of(encodec_48k(0))
    with torch.inference_mode():
        assert model(torch.zeros(1, 2, 5000)).x_hat.abs().max() < 1e-6


def test_contexts_of_the_published_nets() -> None:
    with torch.device("meta"):
        mono, stereo = Encodec(encodec_24k()), Encodec(encodec_48k())
    # an LSTM remembers everything, but nothing looks ahead
    assert (mono.encoder_context, mono.decoder_context) == ((UNLIMITED, 0), (UNLIMITED, 0))
    assert (mono.delay, mono.receptive_field) == (319, UNLIMITED)
    assert mono.unit == (320, 1)
    # a segment is all that its frames see, and the one before ends in it
    assert stereo.unit == (47_520, 150)
    assert (stereo.encoder_context, stereo.decoder_context) == ((0, 480), (150, 2))
    whole = encodec_48k(0).model_copy(update={"segment_seconds": None})
    assert Encodec(whole).encoder_context == Context(UNLIMITED, UNLIMITED)
    assert Encodec(whole).delay == UNLIMITED


@torch.inference_mode()
def moved(model: Encodec, values: Tensor, position: int, *, decoding: bool) -> list[int]:
    """The outputs of a model without its quantizer that change when the input at one position does."""

    def out(values: Tensor) -> Tensor:
        return model.decode(values) if decoding else model.encode(values).z

    other = values.clone()
    other[..., position] += 3.0
    return torch.nonzero((out(values) != out(other)).any(1)[0]).flatten().tolist()


@pytest.mark.parametrize("name", ["no LSTM", "odd segments"])
def test_contexts_are_exact(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An input moves outputs of the units whose context holds it, and of no unit further."""
    model = model_of(CONFIGS[name]).double()
    monkeypatch.setattr(
        model.bottleneck, "forward", lambda h, **options: Bottled(h, (torch.zeros(0),), None, {})
    )
    (samples, frames), units, unit = model.unit, 40, 20
    x = sound(model, units * samples).double()
    left, right = model.encoder_context
    own = set(range(unit * frames, (unit + 1) * frames))
    for position in (unit * samples - left, (unit + 1) * samples - 1 + right):
        assert own & set(moved(model, x, position, decoding=False))
    for position in (unit * samples - left - 1, (unit + 1) * samples + right):
        assert not own & set(moved(model, x, position, decoding=False))

    z = model.encode(x).z.detach()
    left, right = model.decoder_context
    own = set(range(unit * samples, (unit + 1) * samples))
    for frame in (unit * frames - left, (unit + 1) * frames - 1):
        assert own & set(moved(model, z, frame, decoding=True))
    for frame in (unit * frames - left - 1, (unit + 1) * frames + right):
        assert not own & set(moved(model, z, frame, decoding=True))


def test_training_moves_weights_and_codebooks() -> None:
    torch.manual_seed(0)
    model = Encodec(encodec_48k(0)).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    x = sound(model, 7000, items=2)
    for step in range(2):
        optimizer.zero_grad()
        out = model(x, sample=True, generators=generators(step, items=2))
        assert set(out.terms) == {"commitment"}
        before = model.bottleneck.layers[0].codebook.vectors.clone()
        ((out.x_hat - x).abs().mean() + out.terms["commitment"]).backward()
        optimizer.step()
        model.commit(step)
        assert not torch.equal(model.bottleneck.layers[0].codebook.vectors, before)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert all(p.grad.any() for p in model.parameters() if p.grad is not None)


def test_codes_that_do_not_fit_are_refused() -> None:
    model = model_of(encodec_48k(0))
    codes = model.encode(sound(model, 5000)).codes
    with pytest.raises(
        LatentError, match="two levels of codes, its segments' RMS and the sound's, got 1"
    ):
        model.decode(codes[1:])
    with pytest.raises(LatentError, match=r"16 frames are 3 segments, got the RMS of 2"):
        model.decode((codes[0][..., :2], codes[1]))
    with pytest.raises(LatentError, match="codebook 0 has codes 0 to 32639, got 32640"):
        model.decode((codes[0] * 0 + 0x7F80, codes[1]))
    with pytest.raises(LatentError, match="codebook 0 has codes 0 to 31, got 32"):
        model.decode((codes[0], codes[1] * 0 + 32))
    with pytest.raises(LatentError, match="one level of codes, got 2"):
        model_of(encodec_24k(0)).decode(codes)


def test_what_cannot_be_is_refused() -> None:
    for preset in (encodec_24k, encodec_48k):
        with pytest.raises(ConfigError, match="size must be 0 to 4, got 5; 4 is the published net"):
            preset(5)
    with pytest.raises(ValidationError, match="a group norm sees later samples"):
        EncodecConfig(seanet=SeanetConfig(norm="group"))
    with pytest.raises(
        ValidationError, match=r"at least hop_length \(320\) samples apart, got 237"
    ):
        EncodecConfig(segment_seconds=0.01)
    with pytest.raises(AudioError, match=r"the model has 1 channel\(s\), the sound has 2"):
        model_of(encodec_24k(0)).encode(torch.zeros(1, 2, 10))


def test_files_of_codes_bring_the_sound_back_as_loud_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_model(tmp_path / "model", Encodec(encodec_48k(0)))
    x = sound(model_of(encodec_48k(0)), 30_001)[0]
    for loudness in (1.0, 0.01):
        file = tmp_path / f"{loudness}.safetensors"
        latent = audiovae.encode(tmp_path / "model", loudness * x, file, sample_rate=48_000)
        assert [codes.shape[0] for codes in latent.codes] == [2, 4]
        back = audiovae.decode(tmp_path / "model", file).samples
        whole = audiovae.reconstruct(tmp_path / "model", loudness * x, sample_rate=48_000).samples
        assert_close(back, whole)
        assert back.shape == x.shape
    few = audiovae.decode(tmp_path / "model", file, n_codebooks=1).samples  # and the RMS
    assert not torch.equal(few, back)
    assert few.square().mean() < 1e-3 * x.square().mean()


def test_the_rms_of_segments_is_no_codebook() -> None:
    model = model_of(encodec_48k(0))
    x = sound(model, 30_001)[0]
    for count in (1, 3, 4):
        latent = audiovae.encode(model, x, sample_rate=48_000, n_codebooks=count)
        assert [codes.shape[0] for codes in latent.codes] == [2, count]
    with pytest.raises(LatentError, match="there are 4 codebooks, n_codebooks was 5"):
        audiovae.encode(model, x, sample_rate=48_000, n_codebooks=5)
    published = {"segment_seconds": 1.0, "overlap": 0.01}
    model = model_of(encodec_48k(0).model_copy(update=published))
    x = sound(model, 200_003)[0]
    for kbps in model.config.bandwidths:
        latent = audiovae.encode(model, x, sample_rate=48_000, kbps=kbps)
        assert latent.codes[1].shape[0] == model.config.codebooks_at(kbps)


@pytest.mark.parametrize("samples", [24_000, 24_001, 100_003])
def test_a_bandwidth_limits_codes_to_its_codebooks(samples: int) -> None:
    model = model_of(encodec_24k(0))
    x = sound(model, samples)[0]
    for kbps in (0.375, *model.config.bandwidths):
        latent = audiovae.encode(model, x, sample_rate=24_000, kbps=kbps)
        assert latent.codes[0].shape[0] == model.config.codebooks_at(kbps)
