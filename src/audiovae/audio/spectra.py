"""Short-time spectra of a pair of sounds, computed once and shared by every loss and metric.

    X[f, k] = sum_n w[n] x[f H + n - N/2] e^(-2 pi i k n / N),    w periodic Hann of N samples, hop H = N / 4

centred, with reflected ends, as torch.stft has it.  On a processor the FFT is a tenth of a spectral loss; the rest is
passes over memory.  So magnitudes, differences and their exact gradients are written out here as functions that work
through blocks that fit the cache, and autograd only sees the block as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from audiovae.audio.stereo import mid_side
from audiovae.errors import AudioError

View = Literal["left_right", "mid_side"]
BLOCK = (
    2**17
)  # numbers in a block on a processor: 0.5 MB of float32, half of a core's level 2 cache

Value = TypeVar("Value")


class Spectra:
    """The spectra of x_hat and x, each computed when first asked for, at any number of window lengths.

    x_hat, x [B, C, T] of one shape and any T >= 1.  Gradients reach x_hat only: x is the target.  A view is "left_right"
    (the channels as they are) or "mid_side" (of two channels).  Rows R = B * C.
    A sound that is too short for the reflection at its ends (T <= N / 2) is continued by zeros first.
    Raises AudioError if the shapes differ or there are no samples.
    """

    def __init__(self, x_hat: Tensor, x: Tensor) -> None:
        if x_hat.shape != x.shape or x.ndim != 3 or x.numel() == 0:
            raise AudioError(
                "two sounds of one shape [batch, channels, samples] with at least one sample are needed, "
                f"got {tuple(x_hat.shape)} and {tuple(x.shape)}"
            )
        kind = torch.float64 if x.dtype == torch.float64 else torch.float32
        self.x_hat, self.x = x_hat.to(kind), x.detach().to(kind)
        self._kept: dict[tuple[Any, ...], Any] = {}

    @property
    def views(self) -> tuple[View, ...]:
        """The views that tell something new: both for stereo, one for any other number of channels."""
        return ("mid_side", "left_right") if self.x.shape[1] == 2 else ("left_right",)

    def waveforms(self, view: View) -> tuple[Tensor, Tensor]:
        """x_hat and x as rows [R, T]."""
        turn: Callable[[Tensor], Tensor] = mid_side if view == "mid_side" else (lambda x: x)
        return self.keep(
            ("waveforms", view),
            lambda: (turn(self.x_hat).flatten(0, 1), turn(self.x).flatten(0, 1)),
        )

    def complex(self, n_fft: int, view: View) -> tuple[Tensor, Tensor]:
        """Spectra of x_hat and x, complex [R, F, N] with N = n_fft // 2 + 1."""

        def compute() -> tuple[Tensor, Tensor]:
            x_hat, x = self.waveforms(view)
            return stft(x_hat, n_fft), stft(x, n_fft)

        return self.keep(("complex", n_fft, view), compute)

    def magnitudes(self, n_fft: int, view: View) -> tuple[Tensor, Tensor]:
        """Magnitudes of x_hat and x, [R, F, N]; the gradient at zero magnitude is zero."""

        def compute() -> tuple[Tensor, Tensor]:
            x_hat, x = self.complex(n_fft, view)
            return magnitude(x_hat), magnitude(x)

        return self.keep(("magnitudes", n_fft, view), compute)

    def keep(self, key: tuple[Any, ...], compute: Callable[[], Value]) -> Value:
        """The value under this key, computed on the first call: for what several terms share."""
        if key not in self._kept:
            self._kept[key] = compute()
        kept: Value = self._kept[key]
        return kept


def stft(x: Tensor, n_fft: int) -> Tensor:
    """Complex spectra of rows of sound.  x [R, T], any T >= 1 -> [R, 1 + T // (n_fft / 4), n_fft // 2 + 1].

    n_fft is a multiple of 4 (the hop is a quarter).
    """
    short = n_fft // 2 + 1 - x.shape[-1]
    x = nn.functional.pad(x, (0, short)) if short > 0 else x
    spectrum: Tensor = _Stft.apply(x, n_fft)  # type: ignore[no-untyped-call]
    return spectrum


def magnitude(spectrum: Tensor) -> Tensor:
    """|X| with a gradient that is zero, not NaN, where X is zero.  Complex [R, F, N] -> [R, F, N]."""
    size: Tensor = _Magnitude.apply(spectrum)  # type: ignore[no-untyped-call]
    return size


@cache
def hann(n_fft: int, kind: torch.dtype, device: torch.device) -> Tensor:
    """The periodic Hann window [n_fft]; shared between callers: do not write into it."""
    with torch.inference_mode(False):  # kept, and so perhaps used where there are gradients
        return torch.hann_window(n_fft, dtype=torch.float64).to(device, kind)


def blocks(like: Tensor) -> Iterator[slice]:
    """Slices of the first dimension of `like`, each a block for the cache; on a GPU all at once."""
    rows = len(like)
    step = max(1, BLOCK * rows // max(1, like.numel())) if like.device.type == "cpu" else rows
    return (slice(first, first + step) for first in range(0, rows, step))


def _power(spectrum: Tensor) -> Tensor:
    """|X|^2; cheaper on a processor than the complex |X|."""
    return spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)


class _Stft(torch.autograd.Function):
    """Windowed frames -> rfft; backward is its exact adjoint by one irfft and four shifted sums."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, n_fft: int) -> Tensor:
        ctx.n_fft, ctx.length = n_fft, x.shape[-1]
        window, half = hann(n_fft, x.dtype, x.device), n_fft // 2
        padded = nn.functional.pad(x, (half, half), mode="reflect")
        frames = padded.unfold(-1, n_fft, n_fft // 4)  # [R, F, n_fft], a view
        result = x.new_empty(
            (*frames.shape[:2], half + 1), dtype=torch.promote_types(x.dtype, torch.complex64)
        )
        for block in blocks(result):
            torch.fft.rfft(frames[block] * window, out=result[block])
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        n_fft, length, count = ctx.n_fft, ctx.length, grad.shape[1]
        hop, half = n_fft // 4, n_fft // 2
        window = hann(n_fft, grad.real.dtype, grad.device) / 2
        padded = window.new_zeros(len(grad), length + n_fft)
        quarters = padded[:, : (count + 3) * hop].view(len(grad), count + 3, hop)  # [R, F + 3, hop]
        for block in blocks(grad):
            # irfft counts every bin but the first and the last twice, the adjoint of rfft once
            bins = grad[block].clone()
            bins[..., 0] *= 2
            bins[..., -1] *= 2
            frames = torch.fft.irfft(bins, n_fft, norm="forward") * window
            parts = frames.view(*frames.shape[:2], 4, hop)  # [R, F, 4, hop]
            for part in range(4):
                quarters[block, part : part + count] += parts[:, :, part]
        result = padded[:, half : half + length].clone()
        result[:, 1 : half + 1] += padded[:, :half].flip(-1)
        result[:, length - half - 1 : length - 1] += padded[:, half + length :].flip(-1)
        return result, None


class _Magnitude(torch.autograd.Function):
    """sqrt(re^2 + im^2); backward X g / |X|."""

    @staticmethod
    def forward(ctx: Any, spectrum: Tensor) -> Tensor:
        result = torch.empty_like(spectrum.real, memory_format=torch.contiguous_format)
        for block in blocks(result):
            torch.sqrt(_power(spectrum[block]), out=result[block])
        ctx.save_for_backward(spectrum, result)
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        spectrum, size = ctx.saved_tensors
        result = torch.empty_like(spectrum)
        for block in blocks(size):
            # where |X| is 0, X is 0 too; the bound only keeps 0 / 0 away
            torch.mul(
                spectrum[block], grad[block] / size[block].clamp(min=1e-30), out=result[block]
            )
        return result
