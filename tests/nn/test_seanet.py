"""SEANet: what its nets reach, and what the options change."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from audiovae.nn.padded_conv import inputs_of
from audiovae.nn.seanet import Decoder, Encoder, ResidualUnit, SeanetConfig

PLAIN = SeanetConfig(width=3, strides=(2, 3), lstm_layers=0, causal=False, residual_units=2)
CAUSAL = SeanetConfig(width=3, strides=(3, 2), lstm_layers=0, padding="replicate")
NETS = {"centred": PLAIN, "causal": CAUSAL}


def filled(net: nn.Module) -> nn.Module:
    """Positive filters hide no input from an output."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.uniform_(0.1, 0.5, generator=generator)
    return net.double().eval()


def seen_by(net: nn.Module, channels: int, length: int, first: int, last: int) -> list[int]:
    """The inputs that outputs first..last have a gradient to."""
    x = torch.ones(1, channels, length, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(x)[..., first : last + 1].sum(), x)
    return torch.nonzero(gradient.any(1)[0]).flatten().tolist()


@pytest.mark.parametrize("config", NETS.values(), ids=NETS.keys())
def test_inputs_of_a_net_are_those_with_a_gradient(config: SeanetConfig) -> None:
    hop, frames = config.hop_length, 24
    middle = frames // 2
    encoder, decoder = filled(Encoder(config, 1, 2)), filled(Decoder(config, 1, 2))
    seen = seen_by(encoder, 1, frames * hop, middle, middle)
    assert (seen[0], seen[-1]) == inputs_of(encoder, middle, middle)
    samples = (middle * hop, middle * hop + hop - 1)
    seen = seen_by(decoder, 2, frames, *samples)
    assert (seen[0], seen[-1]) == inputs_of(decoder, *samples)


@pytest.mark.parametrize("lstm_layers", [0, 1])
def test_a_causal_net_sees_nothing_later(lstm_layers: int) -> None:
    config = CAUSAL.model_copy(update={"lstm_layers": lstm_layers})
    encoder, decoder = filled(Encoder(config, 1, 2)), filled(Decoder(config, 1, 2))
    hop, frames, frame = config.hop_length, 24, 15
    assert seen_by(encoder, 1, frames * hop, frame, frame)[-1] == frame * hop + hop - 1
    seen = seen_by(decoder, 2, frames, frame * hop, frame * hop + hop - 1)
    assert seen[-1] == frame
    assert (seen[0] == 0) is (lstm_layers == 1)


def test_a_unit_without_its_branch_is_its_shortcut() -> None:
    h = torch.randn(1, 4, 9)

    def unit(shortcut: str) -> Tensor:
        net = ResidualUnit(PLAIN.model_copy(update={"shortcut": shortcut, "norm": "none"}), 4, 1)
        with torch.no_grad():
            for parameter in net.project.parameters():
                parameter.zero_()
            if shortcut == "conv":
                net.shortcut.conv.weight.copy_(2 * torch.eye(4)[..., None])
                net.shortcut.conv.bias.zero_()
        return net(h)

    torch.testing.assert_close(unit("identity"), h)
    torch.testing.assert_close(unit("conv"), 2 * h)


def test_a_width_below_its_compression_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"width must be at least compress \(2\), got 1"):
        SeanetConfig(width=1)


@pytest.mark.parametrize("length", [1, 65 * 6, 200 * 6 + 5])
@pytest.mark.parametrize("config", NETS.values(), ids=NETS.keys())
def test_pieces_equal_the_whole(config: SeanetConfig, length: int) -> None:
    """Without gradients, sounds longer than 64 frames are computed piece by piece."""
    config = config.model_copy(update={"lstm_layers": 1, "padding": "reflect"})
    encoder, decoder = filled(Encoder(config, 1, 2)), filled(Decoder(config, 1, 2))
    x = torch.randn(1, 1, length, dtype=torch.float64)
    whole = encoder(x), decoder(encoder(x))
    with torch.inference_mode():
        h = encoder(x)
        torch.testing.assert_close(h, whole[0], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(decoder(h), whole[1], rtol=1e-9, atol=1e-9)
