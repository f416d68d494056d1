"""Spectra against torch.stft; written-out gradients against finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from audiovae.audio import spectra as module
from audiovae.audio.spectra import Spectra, magnitude, stft
from audiovae.errors import AudioError


def reference(x: Tensor, n_fft: int) -> Tensor:
    window = torch.hann_window(n_fft, dtype=x.dtype)
    return torch.stft(x, n_fft, n_fft // 4, window=window, return_complex=True).mT


@pytest.mark.parametrize("n_fft", [32, 256, 2048])
@pytest.mark.parametrize("length", [1025, 4096, 5001])
def test_spectrum_and_its_gradient_equal_torch_stft(n_fft: int, length: int) -> None:
    x = torch.randn(3, length, dtype=torch.float64, requires_grad=True)
    ours, theirs = stft(x, n_fft), reference(x, n_fft)
    torch.testing.assert_close(ours, theirs)
    weight = torch.randn_like(ours)
    gradients = [torch.autograd.grad((s * weight).real.sum(), x)[0] for s in (ours, theirs)]
    torch.testing.assert_close(*gradients)


def test_gradients_equal_finite_differences() -> None:
    x = torch.randn(2, 70, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: magnitude(stft(x, 16)), x)


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(5, 600, dtype=torch.float64, requires_grad=True)

    def value_and_gradient() -> tuple[Tensor, Tensor]:
        size = magnitude(stft(x, 64))
        return size, torch.autograd.grad(size.square().sum(), x)[0]

    whole = value_and_gradient()
    monkeypatch.setattr(module, "BLOCK", 1)  # a row at a time
    rows = value_and_gradient()
    for a, b in zip(whole, rows, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("length", [1, 2, 16, 17])
def test_a_short_sound_is_continued_by_zeros(length: int) -> None:
    x = torch.randn(1, length, dtype=torch.float64, requires_grad=True)
    padded = torch.nn.functional.pad(x, (0, max(0, 17 - length)))
    torch.testing.assert_close(stft(x, 32), reference(padded, 32))
    assert torch.autograd.gradcheck(lambda x: stft(x, 32), x)


def test_the_gradient_of_silence_is_zero() -> None:
    x = torch.zeros(1, 200, requires_grad=True)
    magnitude(stft(x, 64)).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() == 0


def test_a_spectrum_is_computed_once_for_all_who_ask() -> None:
    pair = Spectra(torch.randn(1, 2, 300), torch.randn(1, 2, 300))
    assert pair.magnitudes(64, "mid_side")[0] is pair.magnitudes(64, "mid_side")[0]
    assert pair.complex(64, "mid_side")[1] is pair.complex(64, "mid_side")[1]
    assert pair.complex(64, "mid_side")[1] is not pair.complex(64, "left_right")[1]


def test_the_mid_spectrum_is_the_mean_of_left_and_right() -> None:
    pair = Spectra(*torch.randn(2, 1, 2, 300, dtype=torch.float64).unbind(0))
    left, right = pair.complex(64, "left_right")[0]
    mid, side = pair.complex(64, "mid_side")[0]
    torch.testing.assert_close(mid, (left + right) / 2)
    torch.testing.assert_close(side, (left - right) / 2)


def test_the_target_gets_no_gradient() -> None:
    x_hat, x = torch.randn(2, 1, 1, 300, requires_grad=True).unbind(0)
    assert Spectra(x_hat, x).magnitudes(64, "left_right")[1].requires_grad is False
    assert Spectra(x_hat, x).views == ("left_right",)


def test_unequal_shapes_are_refused() -> None:
    with pytest.raises(AudioError, match=r"one shape .* got \(1, 1, 5\) and \(1, 1, 6\)"):
        Spectra(torch.zeros(1, 1, 5), torch.zeros(1, 1, 6))
    with pytest.raises(AudioError, match="at least one sample"):
        Spectra(torch.zeros(1, 1, 0), torch.zeros(1, 1, 0))
