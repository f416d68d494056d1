"""The spectral envelope in mel bands: what a sound's gain is, apart from its shape."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from audiovae.audio.mel import hz_to_mel, mel_to_hz

MAX_LOG_MAGNITUDE = 5.0  # of a bin: 148 is louder than any full-scale sound's
SPREAD = 1.5  # nats; the usual deviation of a band's log amplitude in music
LEAST_SPREAD = 0.5  # of a band that hardly changes, as in an empty side channel


class Envelope(nn.Module):
    """The log amplitude of a spectrum in mel bands, standardised, and the gain of each bin that it stands for.

    Bands are hats over the bins, one at each centre, that sum to 1: the gain is linear in log amplitude between centres.
    Their mean and deviation are those of music (1/f above 300 Hz) until `calibrate` hears what there is.
    """

    hats: Tensor  # [bands, N]
    centre: Tensor  # [C, 1, bands], mean log amplitude in nats
    spread: Tensor  # [C, 1, bands], its deviation

    def __init__(self, n_bands: int, n_bins: int, sample_rate: int, channels: int = 1) -> None:
        super().__init__()
        step = sample_rate / 2 / (n_bins - 1)  # Hz from bin to bin
        top = hz_to_mel(torch.tensor(sample_rate / 2), "htk")
        at = mel_to_hz(torch.linspace(0, 1, n_bands) * top, "htk") / step
        at = torch.maximum(at, torch.arange(n_bands))  # in bins; at low frequencies a bin is a band
        bins = torch.arange(n_bins)
        below = (torch.searchsorted(at, bins.float(), right=True) - 1).clamp(0, max(n_bands - 2, 0))
        hats = torch.zeros(n_bands, n_bins)
        above = (below + 1).clamp(max=n_bands - 1)
        share = ((bins - at[below]) / (at[above] - at[below]).clamp(min=1e-6)).clamp(0, 1)
        hats[above, bins] = share
        hats[below, bins] += 1 - share
        self.register_buffer("hats", hats, persistent=False)
        centre = (-2 - (1 + at * step / 300).log()).repeat(channels, 1, 1)
        self.register_buffer("centre", centre)
        self.register_buffer("spread", torch.full_like(centre, SPREAD))

    def calibrate(self, powers: Sequence[Tensor]) -> None:
        """Take mean and deviation from |X|^2 [B, C, F, N], each above 0; frames that are not finite do not count."""
        levels = torch.cat([self.level(power).transpose(1, 2).flatten(0, 1) for power in powers])
        levels = levels[levels.isfinite().flatten(1).all(1)]  # [frames, C, bands]
        if len(levels) > 1:
            self.centre.copy_(levels.mean(0)[:, None])
            self.spread.copy_(levels.std(0).clamp(min=LEAST_SPREAD)[:, None])

    def level(self, power: Tensor) -> Tensor:
        """|X|^2 [..., N], above 0 -> log amplitude of each band, [..., bands]."""
        weights = self.hats / self.hats.sum(1, keepdim=True)
        with torch.autocast(power.device.type, enabled=False):  # bf16 would be wrong by decibels
            return functional.linear(power, weights).log() / 2

    def forward(self, power: Tensor) -> Tensor:
        """|X|^2 [..., C, F, N], above 0 -> [..., C, F, bands]."""
        return (self.level(power) - self.centre) / self.spread

    def gain(self, envelope: Tensor) -> Tensor:
        """[..., C, F, bands] -> amplitude of each bin, [..., C, F, N]."""
        level = (self.centre + self.spread * envelope).clamp(max=MAX_LOG_MAGNITUDE)
        with torch.autocast(level.device.type, enabled=False):
            return functional.linear(level, self.hats.mT).exp()
