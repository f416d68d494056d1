"""RAVE v2: its lengths and reach, its net written out with plain functions, its noise, its size."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional

from audiovae.bottlenecks import GaussianConfig
from audiovae.errors import AudioError, ConfigError
from audiovae.losses.published import rave_distance
from audiovae.models.rave import NOISE_STRIDES, RaveV2, RaveV2Config, hashed_noise, rave_v2
from audiovae.nn.noise import generators

SMALL = RaveV2Config(
    channels=2,
    n_bands=4,
    width=3,
    ratios=(4, 2),
    dilations=((1, 3), (2,)),
    noise_points=4,
    noise_width=5,
    bottleneck=GaussianConfig(latent_dim=3, parametrisation="softplus"),
)
CONFIGS = {
    "noise": SMALL,
    "plain": SMALL.model_copy(update={"noise_points": 0, "channels": 1, "n_bands": 2}),
}


def model_of(config: RaveV2Config) -> RaveV2:
    """A random model in float64, loud enough that every path shows."""
    torch.manual_seed(0)
    model = RaveV2(config).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("original0"):
                parameter.uniform_(0.8, 1.2)
            elif name.startswith("noise"):
                parameter.normal_(0.0, 4.0)
            else:
                parameter.normal_(0.0, 0.5)
    return model


def noise(*shape: int) -> Tensor:
    return 0.3 * torch.randn(
        *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@torch.inference_mode()
def test_encoder_context_is_exact(config: RaveV2Config) -> None:
    model, hop = model_of(config), config.hop_length
    left, right = model.encoder_context
    frame = left // hop + 2
    x = noise(1, config.channels, (frame + right // hop + 3) * hop)
    z = model.encode(x).z[..., frame]
    inside = (frame * hop - left, (frame + 1) * hop - 1 + right)
    for position in (*inside, inside[0] - 1, inside[1] + 1):
        other = x.clone()
        other[..., position] += 1000
        moved = bool((model.encode(other).z[..., frame] != z).any())
        assert moved is (position in inside)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@torch.inference_mode()
def test_decoder_context_is_exact(config: RaveV2Config) -> None:
    model, hop = model_of(config), config.hop_length
    left, right = model.decoder_context
    frame = max(left, right) + 1
    z = noise(1, 3, 2 * frame + 1)
    other = z.clone()
    other[..., frame] += 10
    moved = (model.decode(other) != model.decode(z)).any(1)[0].nonzero().flatten() // hop
    assert (int(moved[0]), int(moved[-1])) == (frame - right, frame + left)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@torch.inference_mode()
def test_every_length_comes_back_as_it_was(config: RaveV2Config) -> None:
    model, hop = RaveV2(config), config.hop_length
    for length in (1, hop - 1, hop, hop + 1, 7 * hop + 2):
        out = model(noise(1, config.channels, length).float())
        assert out.x_hat.shape == (1, config.channels, length)
        assert out.z.shape[-1] == -(-length // hop)
        assert out.x_hat.isfinite().all()


@torch.inference_mode()
def test_a_batch_equals_its_single_items() -> None:
    model, x = model_of(SMALL).float(), noise(3, 2, 500).float()
    options = [{"sample": True, "generators": generators(7, items=1, first=i)} for i in range(3)]
    batch = model(x, sample=True, generators=generators(7, items=3)).x_hat
    single = torch.cat([model(x[i : i + 1], **options[i]).x_hat for i in range(3)])
    assert (batch - single).abs().max() <= 1e-5 * single.abs().max()


def activated(h: Tensor) -> Tensor:
    return functional.leaky_relu(h, 0.2)


def same(h: Tensor, conv: nn.Module, dilation: int = 1) -> Tensor:
    """The original's centred padding."""
    span = (conv.weight.shape[-1] - 1) * dilation
    return functional.conv1d(functional.pad(h, (span // 2, span // 2)), conv.weight, None, 1, 0, dilation)  # fmt: skip


def unit(h: Tensor, module: nn.Module, dilation: int) -> Tensor:
    _, first, _, second = module.branch
    return h + same(activated(same(activated(h), first, dilation)), second)


@torch.inference_mode()
def test_the_encoder_is_the_published_one_written_out() -> None:
    """Conv 7; units of dilations 1, 3 and a conv of kernel 8, stride 4; a unit and kernel 4, stride 2; conv 3."""
    model, x = model_of(SMALL), noise(2, 2, 320)
    e = list(model.encoder)
    h = same(model.pqmf(x), e[0])
    h = unit(unit(h, e[1], 1), e[2], 3)
    h = functional.conv1d(functional.pad(activated(h), (3, 4)), e[5].weight, stride=4)
    h = unit(h, e[6], 2)
    h = functional.conv1d(functional.pad(activated(h), (1, 2)), e[9].weight, stride=2)
    mean, scale = same(activated(h), e[11]).chunk(2, 1)
    bottled = model.encode(x)
    assert len(e) == 12 and mean.std() > 0.01
    torch.testing.assert_close(bottled.moments[0], mean.float())
    sigma = functional.softplus(scale) + 1e-4
    torch.testing.assert_close((bottled.moments[1] / 2).exp(), sigma.float())


def published_noise(model: RaveV2, h: Tensor, z: Tensor) -> Tensor:
    """The original's branch with its order of paddings and rolls, fed our white noise."""
    for number, conv in enumerate(model.noise.convs):
        h = functional.conv1d(functional.pad(activated(h) if number else h, (2, 0)), conv.weight, stride=2)  # fmt: skip
    amp = (2 * torch.sigmoid(h - 5) ** 2.3 + 1e-7).permute(0, 2, 1)
    amp = amp.reshape(amp.shape[0], amp.shape[1], 8, -1)
    ir = torch.fft.irfft(torch.view_as_complex(torch.stack([amp, torch.zeros_like(amp)], -1)))
    size = ir.shape[-1]
    ir = torch.roll(ir, size // 2, -1) * torch.hann_window(size, dtype=ir.dtype)
    ir = torch.roll(functional.pad(ir, (0, 8 - size)), -size // 2, -1)
    white = hashed_noise(z, 8 * 8).reshape(ir.shape)
    signal, kernel = functional.pad(white, (0, 8)), functional.pad(ir, (8, 0))
    output = torch.fft.irfft(torch.fft.rfft(signal) * torch.fft.rfft(kernel))[..., 8:]
    return output.permute(0, 2, 1, 3).reshape(len(h), 8, -1)


@torch.inference_mode()
def test_the_decoder_is_the_published_one_written_out() -> None:
    model, z = model_of(SMALL), noise(2, 3, 9)
    d = list(model.decoder)
    h = same(z, d[0])
    h = functional.conv_transpose1d(activated(h), d[2].weight, stride=2, padding=1)
    h = unit(h, d[3], 2)
    h = functional.conv_transpose1d(activated(h), d[5].weight, stride=4, padding=2)
    h = activated(unit(unit(h, d[6], 1), d[7], 3))
    added = published_noise(model, h, z)
    assert len(d) == 9 and added.std() > 1e-3
    wave, amplitude = same(h, model.head).chunk(2, 1)
    bands = torch.tanh(wave * torch.sigmoid(amplitude) + added)
    torch.testing.assert_close(model.decode(z), model.pqmf.inverse(bands))


def test_noise_is_white_and_its_own_for_each_latent() -> None:
    z = torch.randn(1, 4, 64, generator=torch.Generator().manual_seed(0))
    values = hashed_noise(z, 1000)[0]  # [64, 1000]
    assert values.min() >= -1 and values.max() < 1
    assert values.mean().abs() < 4 * math.sqrt(1 / 3 / values.numel())
    assert values.var() == pytest.approx(1 / 3, rel=0.02)
    together = torch.corrcoef(values) - torch.eye(64)  # frames; of independent ones 1 / sqrt(1000)
    assert together.abs().max() < 6 / math.sqrt(1000)
    flat = values.flatten()
    for lag in (1, 2, 8, 1000):
        assert (flat[lag:] * flat[:-lag]).mean().abs() < 5 / 3 / math.sqrt(len(flat))
    shift = hashed_noise(z[..., 5:9], 1000)[0]
    assert torch.equal(shift, values[5:9])


def test_the_distance_of_bands_is_of_frames_that_the_crop_holds_whole() -> None:
    """RAVE measures the field at the middle sample of a sound and cuts as much off both ends of the bands."""
    model = model_of(CONFIGS["plain"]).float()
    n_bands, middle = 2, 256 * model.hop_length
    x = (0.1 * torch.randn(1, 1, 2 * middle)).requires_grad_()
    bottled = model.encode(x)
    model.decode(bottled.z)[0, 0, middle].backward()
    assert x.grad is not None
    left, right = (int((half != 0).sum()) for half in x.grad[0, 0].chunk(2))
    model.extra_terms = frozenset({"multiband"})
    with torch.no_grad():
        found = float(model.reconstruct(bottled, x).terms["multiband"])
        sides = [model.bands(bottled.z), model.pqmf(x)]
        known = []
        for more in (0, model.hop_length):  # our contexts are those of a whole latent frame
            first, last = (left + more) // n_bands, -(-(right + more) // n_bands)
            known.append(
                float(rave_distance(*(side[..., first : -last or None] for side in sides)))
            )
    assert found == pytest.approx(known[0], rel=2e-3) or found == pytest.approx(known[1], rel=2e-3)
    short = 0.1 * torch.randn(1, 1, 4 * model.hop_length)
    with torch.no_grad():  # where no frame is whole, all count
        bottled = model.encode(short)
        whole = rave_distance(model.bands(bottled.z), model.pqmf(short))
        assert float(model.reconstruct(bottled, short).terms["multiband"]) == pytest.approx(
            float(whole)
        )


def test_one_step_lowers_the_loss_and_reaches_every_weight() -> None:
    torch.manual_seed(0)
    model = RaveV2(rave_v2(0, noise=True))
    x = 0.1 * torch.randn(1, 1, 3 * 2048)

    def loss() -> Tensor:
        out = model(x, sample=True, generators=generators(0, items=1))
        return (out.x_hat - x).abs().mean() + 1e-6 * out.terms["kl"]

    before = loss()
    before.backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    torch.optim.AdamW(model.parameters(), 1e-3).step()
    assert loss() < before


def test_sizes_grow_from_the_test_model_to_the_published_one() -> None:
    with torch.device("meta"):
        models = [RaveV2(rave_v2(size)) for size in range(4)]
    weights = [sum(p.numel() for p in model.parameters()) for model in models]
    assert weights[0] < 100_000
    assert weights == sorted(weights)
    config = rave_v2()
    assert config.widths == (96, 192, 384, 768, 1536)
    assert (config.hop_length, config.bottleneck.latent_dim, config.channels) == (2048, 128, 1)
    assert math.prod(config.ratios) % math.prod(NOISE_STRIDES) == 0


@pytest.mark.parametrize("size", [-1, 4])
def test_a_size_off_the_dial_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=f"size must be 0 to 3, got {size}"):
        rave_v2(size)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratios": (4, 4)}, "each ratio needs its dilations, got 2 and 4"),
        ({"ratios": (4, 3, 4, 2)}, "multiple of 2"),
        ({"noise_points": 6}, "noise_points must be 2 to 5, or 0, got 6"),
        ({"noise_points": 1}, "noise_points must be 2 to 5, or 0, got 1"),
        (
            {"noise_points": 5, "ratios": (2, 2), "dilations": ((1,), (1,))},
            "product is a multiple of 8",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RaveV2Config(**options)


def test_another_number_of_channels_is_refused() -> None:
    with pytest.raises(AudioError, match=r"the model has 1 channel\(s\), the sound has 2"):
        RaveV2(rave_v2(0)).encode(torch.zeros(1, 2, 10))
