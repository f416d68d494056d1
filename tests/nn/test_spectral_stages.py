"""2-D stages: sizes go there and back, time reaches as far as is said, and BatchNorm knows its mode."""

import pytest
import torch

from audiovae.nn.conv import inputs_of
from audiovae.nn.spectral_stages import SpectralDecoder, SpectralEncoder, unit

STRIDES = [((2, 2), (2, 1)), ((3, 2), (1, 4)), ((2, 3),)]


def pair(strides, depth: int = 1) -> tuple[SpectralEncoder, SpectralDecoder]:
    torch.manual_seed(0)
    widths = (3, 4, 5)[: len(strides) + 1]
    return SpectralEncoder(2, widths, strides, depth), SpectralDecoder(2, widths, strides, depth)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("strides", STRIDES)
@torch.no_grad()
def test_the_decoder_has_the_size_of_the_encoder_and_bands_are_filled_up(strides) -> None:
    encoder, decoder = (net.eval() for net in pair(strides))
    frequency = torch.tensor([f for f, _ in strides]).prod().item()
    time = torch.tensor([t for _, t in strides]).prod().item()
    for n_bands in (4 * frequency, 4 * frequency - 1):
        x = noise(1, 2, n_bands, 5 * time)
        h = encoder(x)
        assert h.shape[2:] == (4, 5)
        assert decoder(h).shape == (1, 2, 4 * frequency, 5 * time)


@pytest.mark.parametrize("strides", STRIDES)
def test_time_reaches_as_far_as_is_said(strides) -> None:
    for net in pair(strides):
        net.eval()
        shape = (1, 2, 12, 60) if isinstance(net, SpectralEncoder) else (1, net_width(net), 3, 40)
        x = noise(*shape).requires_grad_()
        y = net(x)
        middle = y.shape[-1] // 2
        y[..., middle].square().sum().backward()
        assert x.grad is not None
        seen = x.grad.abs().amax((0, 1, 2)).nonzero().flatten()
        assert (int(seen[0]), int(seen[-1])) == inputs_of(net, middle, middle)


def net_width(decoder: SpectralDecoder) -> int:
    return next(decoder.parameters()).shape[0]


def test_batch_norm_takes_the_batch_in_training_and_what_it_stored_afterwards() -> None:
    layer = unit(torch.nn.Conv2d(1, 2, 1))
    torch.nn.init.ones_(layer[0].weight)
    torch.nn.init.zeros_(layer[0].bias)
    x = 3 + 2 * noise(8, 1, 16, 16)
    for _ in range(100):
        y = layer(x)
    torch.testing.assert_close(y, ((x - x.mean()) / x.std()).relu().expand_as(y), rtol=0, atol=1e-2)
    layer.eval()
    torch.testing.assert_close(layer(x), y, rtol=0, atol=1e-2)
    torch.testing.assert_close(layer(x[:1]), layer(x)[:1])
    stored = layer[1].running_mean.clone()
    layer(x + 100)
    assert torch.equal(layer[1].running_mean, stored)
