"""Log spectrograms, and the magnitudes that they show.

    x -> |STFT| -> mel bands, if any -> log10 of at least 1e-5

Magnitudes are those of the plain transform (a full-scale sine has a quarter of the window's length), the bands those of
librosa.feature.melspectrogram(power=1).  Without mel bands the last bin, at half the sample rate, is left out and comes
back as 0: a power of two is left, which nets halve well.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from audiovae.audio.compare import FLOOR
from audiovae.audio.inversion import mel_envelope, mel_inverse
from audiovae.audio.mel import mel_bands, mel_filters
from audiovae.audio.transforms import STFT
from audiovae.errors import ConfigError

LOUDEST = 3.5  # log10: above any full-scale sound's, so that what a net guesses cannot overflow


class LogSpectrogram(nn.Module):
    """x [B, C, F * H] -> log10 of magnitudes, or with `n_mels` of Slaney mel bands, [B, C, N, F].

    Raises ConfigError if a mel band is so narrow that no bin falls into it.
    """

    weights: Tensor
    offsets: Tensor

    def __init__(
        self, sample_rate: int, win_length: int, hop_length: int, n_mels: int | None
    ) -> None:
        super().__init__()
        self.sample_rate, self.n_mels = sample_rate, n_mels
        self.bank = STFT(win_length, hop_length, phase="sound")
        self.n_bands = win_length // 2 if n_mels is None else n_mels
        self.scale = win_length**0.5  # of the plain transform over the bank's
        if n_mels is not None:
            expect_no_empty_band(sample_rate, win_length, n_mels)
            weights, offsets = mel_envelope(self.filters)
            self.register_buffer("weights", weights, persistent=False)
            self.register_buffer("offsets", offsets, persistent=False)

    @property
    def filters(self) -> Tensor:
        """The mel filters [n_mels, bins]."""
        return mel_filters(self.sample_rate, self.bank.win_length, self.n_bands)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, F * H] -> log bands [B, C, N, F], -5 at least."""
        with _exact(x):
            bands = self.bank(x).abs() * self.scale  # [B, C, F, bins]
            if self.n_mels is None:
                bands = bands[..., :-1]
            else:
                bands = mel_bands(bands, self.sample_rate, self.bank.win_length, self.n_mels)
            levels: Tensor = bands.clamp(min=FLOOR).log10()
            return levels.mT

    def envelope(self, bands: Tensor) -> Tensor:
        """Log bands [B, C, N, F] -> smooth magnitudes of the bank [B, C, F, bins], with a gradient.

        A bin lies between its two bands; without mel bands it is the magnitude itself.
        """
        with _exact(bands):
            if self.n_mels is None:
                return self.magnitude(bands)
            return self._linear(bands.mT @ self.weights.mT + self.offsets)

    def magnitude(self, bands: Tensor) -> Tensor:
        """Log bands [B, C, N, F] -> magnitudes of the bank [B, C, F, bins] that have just these bands."""
        with _exact(bands):
            levels = self._linear(bands.mT)
            if self.n_mels is None:
                return nn.functional.pad(levels, (0, 1))
            return mel_inverse(levels, self.filters.to(levels))

    def _linear(self, levels: Tensor) -> Tensor:
        """10^levels in the scale of the bank."""
        linear: Tensor = 10 ** levels.clamp(max=LOUDEST) / self.scale
        return linear


def expect_no_empty_band(sample_rate: int, win_length: int, n_mels: int) -> None:
    """Raise ConfigError if a mel band is so narrow that no bin falls into it."""
    empty = int((mel_filters(sample_rate, win_length, n_mels).sum(1) == 0).sum())
    if empty:
        raise ConfigError(
            f"{empty} of {n_mels} mel bands are narrower than a bin of win_length {win_length} at {sample_rate} Hz; "
            "lower n_mels or raise win_length"
        )


def _exact(like: Tensor) -> torch.autocast:
    """No autocast: a log needs all bits of a float32."""
    return torch.autocast(like.device.type, enabled=False)
