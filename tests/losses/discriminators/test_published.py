"""Published discriminators: ours give what the genuine ones give, with the same weights."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from torch import Tensor, nn

from audiovae.losses.discriminators import BandsConfig, Discriminators, PeriodConfig, StftConfig
from audiovae.losses.discriminators.base import Verdict


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What encodec and dac import for files alone, and audiotools' and torchaudio's spectra written out.

    dac/model/discriminator.py and encodec/msstftd.py are the packages' own; the transforms that they call are these.
    """
    torchaudio, tools = MagicMock(), MagicMock()
    torchaudio.transforms.Spectrogram = _Spectrogram
    tools.ml.BaseModel = type("BaseModel", (nn.Module,), {"INTERN": [], "EXTERN": []})
    tools.AudioSignal, tools.STFTParams = _AudioSignal, lambda **params: params
    stand_ins = {"torchaudio": torchaudio, "audiotools": tools, "audiotools.ml": tools.ml}
    stand_ins |= {"audiotools.core": tools.core, "argbind": MagicMock()}
    for name, module in stand_ins.items():
        monkeypatch.setitem(sys.modules, name, module)
    yield
    for name in [n for n in sys.modules if n.split(".")[0] in ("dac", "encodec")]:
        del sys.modules[name]


class _Spectrogram(nn.Module):
    """torchaudio.transforms.Spectrogram(power=None, normalized=True, center=False)."""

    def __init__(self, n_fft: int, hop_length: int, win_length: int, **_: Any) -> None:
        super().__init__()
        self.n_fft, self.hop = n_fft, hop_length
        self.window = torch.hann_window(win_length)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        out = torch.stft(
            rows, self.n_fft, self.hop, window=self.window, center=False, return_complex=True
        )
        return out.reshape(*x.shape[:-1], *out.shape[1:]) / self.window.square().sum().sqrt()


class _AudioSignal:
    """audiotools.AudioSignal, as far as its stft with match_stride goes."""

    def __init__(self, x: Tensor, sample_rate: int, stft_params: dict[str, Any]) -> None:
        self.x, self.params = x, stft_params

    def stft(self) -> Tensor:
        length, hop = self.params["window_length"], self.params["hop_length"]
        pad, right = (length - hop) // 2, -self.x.shape[-1] % hop
        x = nn.functional.pad(self.x, (pad, pad + right), "reflect")
        window = torch.hann_window(length)
        out = torch.stft(x.flatten(0, 1), length, hop, window=window, return_complex=True)
        return out[..., 2:-2].unflatten(0, self.x.shape[:2])


def random_weights(peer: nn.Module, channels: int = 1) -> None:
    """Fill every parameter; one look at a sound brings the old form of weight norm up to date."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in peer.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 10
            parameter.normal_(0.0, fan_in**-0.5, generator=generator)
            if parameter.ndim > 1 and fan_in == 1:  # the lengths of weight norm
                parameter.abs_().add_(0.5)
        peer(torch.randn(1, channels, 3000))


def weights_of(net: nn.Module) -> list[tuple[Tensor, Tensor, Tensor | None]]:
    """(filters, bias) of every convolution in the order in which they were set, norms taken in."""
    convs = [m for m in net.modules() if isinstance(m, nn.Conv1d | nn.Conv2d)]
    return [(conv, conv.weight.detach(), conv.bias) for conv in convs]  # type: ignore[misc]


def copy_weights(ours: nn.Module, peer: nn.Module) -> None:
    """Set every convolution of ours to the filters of the peer's, whatever way they are parametrised."""
    pairs = zip(weights_of(ours), weights_of(peer), strict=True)
    with torch.no_grad():
        for (mine, _, _), (_, weight, bias) in pairs:
            if isinstance(mine.weight, nn.Parameter):
                mine.weight.copy_(weight)
            else:
                mine.weight = weight.clone()  # through the norm's right inverse
            mine.bias.copy_(bias)


def expect_equal(ours: list[Verdict], logits: list[Tensor], features: list[list[Tensor]]) -> None:
    assert len(ours) == len(logits)
    for verdict, theirs, seen in zip(ours, logits, features, strict=True):
        assert theirs.std() > 0.01
        for mine, their in zip((verdict.logits, *verdict.features), (theirs, *seen), strict=True):
            assert mine.shape == their.shape
            assert (mine - their).abs().max() <= 1e-5 * their.abs().max()


@pytest.mark.parametrize("channels", [1, 2])
@torch.no_grad()
def test_stft_is_encodecs(stand_ins: None, channels: int) -> None:
    from encodec.msstftd import MultiScaleSTFTDiscriminator

    n_ffts = [512, 128]
    hops = [n // 4 for n in n_ffts]
    torch.manual_seed(1)
    peer = MultiScaleSTFTDiscriminator(
        8, in_channels=channels, n_ffts=n_ffts, hop_lengths=hops, win_lengths=n_ffts
    ).eval()
    random_weights(peer, channels)
    ours = Discriminators([StftConfig(n_ffts=tuple(n_ffts), width=8)], channels).eval()
    copy_weights(ours, peer)
    x = 0.3 * torch.randn(2, channels, 3001)
    expect_equal(ours(x), *peer(x))


@torch.no_grad()
def test_periods_and_bands_are_dacs(stand_ins: None) -> None:
    """At their published widths; the sound loses its mean and gets one level first."""
    from dac.model.discriminator import Discriminator

    torch.manual_seed(1)
    peer = Discriminator(periods=[2, 5], fft_sizes=[512], rates=[]).eval()
    random_weights(peer)
    configs = [PeriodConfig(periods=(2, 5)), BandsConfig(n_ffts=(512,))]
    ours = Discriminators(configs, 1, normalise=True).eval()
    copy_weights(ours, peer)
    for length in (3000, 3001):  # the fold adds a row even where none is missing
        x = 0.3 * torch.randn(2, 1, length) + 0.1
        theirs = peer(x)
        expect_equal(ours(x), [maps[-1] for maps in theirs], [maps[:-1] for maps in theirs])
