"""A sound as a picture: its mel spectrogram in dB, as a PNG.

Time goes right, pitch goes up on the mel scale (even to 1 kHz, logarithmic above), brightness is the level from
-80 dB to 0 dB below a reference.
"""

from __future__ import annotations

import importlib.util
import io
import math

import torch
from torch import Tensor

from audiovae.audio.mel import hz_to_mel, mel_filters
from audiovae.errors import MissingPackageError

RANGE_DB = 80.0
SILENCE_DB = -100.0  # below it there is nothing to see
TOP_HZ = 16_000.0
ROWS = 128  # mel bands; more would be narrower than a bin of the shortest window at the low end
WINDOW_SECONDS = 0.0464  # 2048 samples at 44.1 kHz
COLUMNS = 320  # about so many, whatever the length
TICKS_HZ = (200, 1_000, 2_000, 4_000, 8_000, 16_000)


def mel_levels(samples: Tensor, sample_rate: int) -> Tensor:
    """The level in dB of each mel band over time, of the channels' mean power.  [C, T] -> [ROWS, F].

    0 dB is a band's share of a full-scale sound; silence is at -200 dB.
    """
    n_fft = 2 ** round(math.log2(WINDOW_SECONDS * sample_rate))
    hop = max(1, min(n_fft // 4, samples.shape[-1] // COLUMNS))
    window = torch.hann_window(n_fft)
    padded = torch.nn.functional.pad(samples.float(), (n_fft // 2, n_fft // 2))
    spectrum = torch.stft(
        padded, n_fft, hop, window=window, center=False, return_complex=True
    )  # [C, N, F]
    power = spectrum.abs().square().mean(0) / window.sum() ** 2  # [N, F]
    filters = mel_filters(sample_rate, n_fft, ROWS, high_hz=top_hz(sample_rate), slaney_norm=False)
    return 10 * (filters @ power).clamp(min=1e-20).log10()


def loudest_db(levels: Tensor) -> float:
    """The level that gets the brightest colour; silence stays dark."""
    return max(float(levels.max()), SILENCE_DB)


def top_hz(sample_rate: int) -> float:
    """The frequency at the upper edge of a picture."""
    return min(TOP_HZ, sample_rate / 2)


def tick_heights(sample_rate: int) -> dict[str, float]:
    """Where a label of a frequency belongs, as a share of the height from below.

    >>> list(tick_heights(8_000))
    ['200', '1k', '2k']
    """
    top = top_hz(sample_rate)
    whole = float(hz_to_mel(torch.tensor(top)))
    return {
        f"{hz // 1000}k" if hz >= 1000 else str(hz): float(hz_to_mel(torch.tensor(float(hz))))
        / whole
        for hz in TICKS_HZ
        if hz < 0.95 * top
    }


def spectrogram_png(
    samples: Tensor, sample_rate: int, *, reference_db: float | None = None
) -> bytes:
    """Paint a sound [C, T].  `reference_db` is the level of the brightest colour; its own loudest if None.

    Two sounds painted with one reference can be compared by eye.
    Raises MissingPackageError without matplotlib.
    """
    levels = mel_levels(samples, sample_rate)
    reference = loudest_db(levels) if reference_db is None else reference_db
    return png((levels - reference) / RANGE_DB + 1)


def png(shades: Tensor) -> bytes:
    """Paint shades [rows, columns] in [0, 1], the first row at the bottom."""
    expect_matplotlib()
    from matplotlib.image import imsave

    file = io.BytesIO()
    imsave(file, shades.numpy(), cmap="magma", vmin=0, vmax=1, origin="lower", format="png")
    return file.getvalue()


def expect_matplotlib() -> None:
    """Raise MissingPackageError unless pictures can be painted."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingPackageError("pictures need one more package: pip install 'audiovae[plot]'")
