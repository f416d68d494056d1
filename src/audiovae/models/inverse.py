"""Two ways from a log spectrogram to sound: Griffin-Lim, which needs no training, and a learned head.

    learned   log bands -> blocks at the frame rate -> a + i b;    X = envelope (a + i b) -> inverse STFT

The envelope is the magnitude that the bands show, so the net is left with what they do not: the phase, and what is finer
than a band. Its numbers are near 1 whatever the loudness.  Kin: Vocos (Siuzdak 2024), which predicts the magnitude too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from audiovae.audio.inversion import griffin_lim, random_phases, reach
from audiovae.audio.log_spectrogram import LogSpectrogram
from audiovae.audio.transforms import STFT, window_margins
from audiovae.nn.blocks import FrameBlock, frame_margins

KERNEL_SIZE, EXPANSION = 7, 3.0  # of the head's blocks, as in spec_frame
MIDDLE, SPREAD = -2.0, 1.5  # of log10 of bands of music: brings them to about -2 to 2 for a net


class GriffinLim(nn.Module):
    """Log bands [B, C, N, F] -> x [B, C, F * H], without a gradient.

    In training the iterations are left out: then the sound is a draft with the first phases. They repeat every `period`
    frames, so that a piece which begins at a multiple of it comes out as in the whole: exactly from equal bands, to about
    1e-3 of the peak where bands differ by the rounding of a float32, which the iterations enlarge.
    """

    def __init__(self, spectrogram: LogSpectrogram, iterations: int, period: int) -> None:
        super().__init__()
        self.spectrogram, self.iterations, self.period = spectrogram, iterations, period

    @torch.no_grad()
    def forward(self, bands: Tensor) -> Tensor:
        """bands [B, C, N, F], F a multiple of the STFT's period."""
        magnitude = self.spectrogram.magnitude(bands)  # [B, C, F, bins]
        n_frames, n_bins = magnitude.shape[-2:]
        phases = random_phases(n_frames, n_bins, self.period)
        iterations = 0 if self.training else self.iterations
        return griffin_lim(magnitude, self.spectrogram.bank, iterations=iterations, start=phases)

    @property
    def margins(self) -> tuple[int, int]:
        """Frames before and after its own that a hop of sound depends on: long, but finite."""
        spread = reach(self.spectrogram.bank, self.iterations)
        left, right = _frames_over_a_hop(self.spectrogram.bank)
        return left + spread, right + spread


class InverseHead(nn.Module):
    """Log bands [B, C, N, F] -> x [B, C, F * H]."""

    def __init__(self, spectrogram: LogSpectrogram, channels: int, width: int, depth: int) -> None:
        super().__init__()
        self.spectrogram, self.channels, self.depth = spectrogram, channels, depth
        self.listen = nn.Linear(channels * spectrogram.n_bands, width)
        self.blocks = nn.Sequential(
            *(FrameBlock(width, KERNEL_SIZE, EXPANSION, causal=False) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(width)
        self.speak = nn.Linear(width, channels * 2 * spectrogram.bank.n_bins)

    def forward(self, bands: Tensor) -> Tensor:
        """bands [B, C, N, F], F a multiple of the STFT's period."""
        rows = ((bands - MIDDLE) / SPREAD).permute(0, 3, 1, 2).flatten(2)  # [B, F, C * N]
        h = self.speak(self.norm(self.blocks(self.listen(rows))))
        turns = h.to(bands.dtype).unflatten(2, (self.channels, 2, -1)).transpose(1, 2)
        envelope = self.spectrogram.envelope(bands)  # [B, C, F, bins]
        real, imaginary = (envelope * part for part in turns.unbind(3))
        return self.spectrogram.bank.inverse(torch.complex(real, imaginary))

    @property
    def margins(self) -> tuple[int, int]:
        """Frames before and after its own that a hop of sound depends on."""
        left, right = frame_margins(KERNEL_SIZE, causal=False)
        before, after = _frames_over_a_hop(self.spectrogram.bank)
        return self.depth * left + before, self.depth * right + after


def _frames_over_a_hop(bank: STFT) -> tuple[int, int]:
    """Frames before and after a hop's own whose windows lie over it."""
    before, after = window_margins(bank.win_length, bank.hop_length, bank.causal)
    # earlier frames reach forward to it, later ones back
    return -(-after // bank.hop_length), -(-before // bank.hop_length)
