"""Losses on the short-time spectrum.

    multi_resolution_stft   sum over N of the mean over views of  sc + mag
        sc  = || |X_hat| - |X| ||  /  || X ||            spectral convergence, Frobenius over the batch   (Arik 2018)
        mag = mean | log |X_hat| - log |X| |             magnitudes floored at 1e-4                       (Yamamoto 2020)
    compressed_complex      mean over re, im of  | c(X_hat) - c(X) |,   c(X) = X (|X|^2 + 1e-6)^((p - 1) / 2), p = 0.3

The magnitude terms leave the phase free; the complex term teaches it.  Each takes a `Spectra`, so that terms share
transforms, and a set of window lengths, so that a step may use a random few of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

from audiovae.audio.spectra import Spectra, View, blocks

WINDOWS = (2048, 1024, 512, 256, 128, 64, 32)
COMPLEX_WINDOWS = (2048, 512)
MAGNITUDE_FLOOR = 1e-4  # auraloss floors the power at 1e-8
SILENCE_RMS = 1e-3  # -60 dBFS: spectral convergence counts a quieter target as if it were this loud


def multi_resolution_stft(
    spectra: Spectra, windows: Sequence[int] = WINDOWS, views: Sequence[View] = ()
) -> Tensor:
    """Spectral convergence plus log-magnitude L1, summed over windows, averaged over mid/side and left/right.

    `views` names one view for each window instead of all: half the work, with the same expectation if drawn at random.

    A silent target has no spectral convergence (0 in the denominator); the norm of the target is therefore at least that
    of white noise at -60 dBFS, so sc is at most 1000 times the rms of x_hat, about, and as published for louder sound.
    """
    pairs = zip(windows, views, strict=True) if views else product(windows, spectra.views)
    terms = [magnitude_terms(spectra, n_fft, view).sum() for n_fft, view in pairs]
    return torch.stack(terms).sum() * len(windows) / len(terms)


def magnitude_terms(spectra: Spectra, n_fft: int, view: View) -> Tensor:
    """(sc, mag) of one window and view, [2]."""
    a, b = spectra.magnitudes(n_fft, view)

    def target() -> tuple[Tensor, Tensor, Tensor]:
        floored = b.clamp(min=MAGNITUDE_FLOOR)
        return floored, floored.log(), torch.linalg.vector_norm(floored)

    floored, log_target, norm = spectra.keep(("log", n_fft, view), target)
    square, absolute = _magnitude_sums(a, floored, log_target)
    quiet = SILENCE_RMS * (3 * n_fft / 8 * b.numel()) ** 0.5  # a Hann window has the energy 3 N / 8
    # the bound keeps the gradient of the root finite where the spectra are equal
    return torch.stack(
        [square.clamp(min=1e-20).sqrt() / norm.clamp(min=quiet), absolute / b.numel()]
    )


def compressed_complex(
    spectra: Spectra, windows: Sequence[int] = COMPLEX_WINDOWS, power: float = 0.3
) -> Tensor:
    """L1 between power-compressed complex spectra of mid/side, averaged over windows: magnitude and phase at once.

    Compression (power 0.3, about that of loudness) keeps the loud bins from being all that counts.
    """
    view = spectra.views[0]
    terms = []
    for n_fft in windows:
        a, b = spectra.complex(n_fft, view)
        target = spectra.keep(
            ("compressed", n_fft, view, power),
            lambda b=b: _compressed(b, power),  # type: ignore[misc]
        )
        total: Tensor = _CompressedDifference.apply(a, target, power)  # type: ignore[no-untyped-call]
        terms.append(total / (2 * b.numel()))
    return torch.stack(terms).mean()


def _magnitude_sums(a: Tensor, b: Tensor, log_b: Tensor) -> tuple[Tensor, Tensor]:
    """sum (a - b)^2 and sum |log a - log b|, with a floored."""
    sums: tuple[Tensor, Tensor] = _MagnitudeSums.apply(a, b, log_b)  # type: ignore[no-untyped-call]
    return sums


class _MagnitudeSums(torch.autograd.Function):
    """Both sums and their gradient 2 (a - b) g1 + sign(a - b) / a g2 in a few passes through the cache."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, log_b: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(a, b)
        squares, absolutes = [], []
        for block in blocks(a):
            floored = a[block].clamp(min=MAGNITUDE_FLOOR)
            difference = (floored - b[block]).flatten()
            squares.append(torch.dot(difference, difference))
            absolutes.append(floored.log_().sub_(log_b[block]).abs_().sum())
        return torch.stack(squares).sum(), torch.stack(absolutes).sum()

    @staticmethod
    def backward(ctx: Any, g_square: Tensor, g_absolute: Tensor) -> tuple[Tensor, None, None]:
        a, b = ctx.saved_tensors
        result = torch.empty_like(a)
        for block in blocks(a):
            floored = a[block].clamp(min=MAGNITUDE_FLOOR)
            difference = floored - b[block]
            slope = difference.sign().mul_(g_absolute).div_(floored)
            slope.add_(difference.mul_(2 * g_square))
            torch.mul(slope, a[block] > MAGNITUDE_FLOOR, out=result[block])
        return result, None, None


class _CompressedDifference(torch.autograd.Function):
    """sum |re| + |im| of s X - V with s = (|X|^2 + 1e-6)^e, e = (power - 1) / 2.

    With S = sign(re) + i sign(im) of the difference, the gradient is
        s S + 2 e X s <S, X> / (|X|^2 + 1e-6),    <S, X> = S.re X.re + S.im X.im.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, v: Tensor, power: float) -> Tensor:
        ctx.save_for_backward(x, v)
        ctx.power = power
        sums = [
            torch.view_as_real(_compressed(x[block], power).sub_(v[block])).abs_().sum()
            for block in blocks(x)
        ]
        return torch.stack(sums).sum()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        x, v = ctx.saved_tensors
        exponent = (ctx.power - 1) / 2
        result = torch.empty_like(x)
        for block in blocks(x):
            power = _bounded_power(x[block])
            scale = power.log().mul_(exponent).exp_()
            difference = torch.view_as_real((x[block] * scale).sub_(v[block]))
            sign = torch.view_as_complex(difference.sign_())
            along = (sign.real * x[block].real).addcmul_(sign.imag, x[block].imag)
            along.mul_(scale).div_(power).mul_(2 * exponent * grad)
            torch.mul(sign, scale.mul_(grad), out=result[block])
            result[block].addcmul_(x[block], along.to(x.dtype))
        return result, None, None


def _compressed(x: Tensor, power: float) -> Tensor:
    """X (|X|^2 + 1e-6)^((power - 1) / 2)."""
    return x * _bounded_power(x).log_().mul_((power - 1) / 2).exp_()


def _bounded_power(x: Tensor) -> Tensor:
    return x.real.square().addcmul_(x.imag, x.imag).add_(1e-6)
