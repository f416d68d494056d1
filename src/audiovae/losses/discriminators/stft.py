"""Multi-resolution complex STFT discriminator: pictures of real and imaginary parts (Défossez et al. 2022, sec. 3.4).

    x [B, C, T] -> X / sqrt(sum w^2), re and im as 2 C planes [B, 2 C, F, N] -> 2-D convolutions

over time and frequency, dilated in time, with a stride of two in frequency. Frames lie whole inside the sound. EnCodec
trains against it, and so does Stable Audio's autoencoder.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from audiovae.config import Config
from audiovae.losses.discriminators.base import ConvStack, Verdict, normed


class StftConfig(Config):
    """Which resolutions, and the convolutions of each."""

    kind: Literal["stft"] = "stft"
    n_ffts: tuple[Annotated[int, Field(ge=4, multiple_of=4)], ...] = Field(
        (2048, 1024, 512, 256, 128), min_length=1
    )  # samples in a frame; the hop is a quarter
    width: int = Field(32, ge=1)
    dilations: tuple[Annotated[int, Field(ge=1)], ...] = (1, 2, 4)  # in time, of a layer each
    slope: float = Field(0.2, ge=0, lt=1)  # of the leaky ReLU below zero


class StftDiscriminator(nn.Module):
    """x [B, C, T] -> a verdict for each resolution."""

    def __init__(self, config: StftConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        self.judges = nn.ModuleList(_judge(config, channels) for _ in config.n_ffts)

    def forward(self, x: Tensor) -> list[Verdict]:
        """Transform and judge."""
        pairs = zip(self.judges, self.config.n_ffts, strict=True)
        return [judge(_planes(x, n_fft)) for judge, n_fft in pairs]


def _judge(config: StftConfig, channels: int) -> ConvStack:
    width = config.width
    # the first one has no weight norm, as published
    convs: list[nn.Module] = [nn.Conv2d(2 * channels, width, (3, 9), padding=(1, 4))]
    convs += [
        normed(nn.Conv2d(width, width, (3, 9), (1, 2), (d, 4), (d, 1))) for d in config.dilations
    ]
    convs.append(normed(nn.Conv2d(width, width, (3, 3), padding=1)))
    last = normed(nn.Conv2d(width, 1, (3, 3), padding=1))
    return ConvStack(convs, last, slope=config.slope, tap="activation")


def _planes(x: Tensor, n_fft: int) -> Tensor:
    """x [B, C, T] -> real parts, then imaginary ones [B, 2 C, F, n_fft / 2 + 1]; a short sound is followed by silence."""
    window = torch.hann_window(n_fft, dtype=x.dtype, device=x.device)
    rows = nn.functional.pad(x, (0, max(0, n_fft - x.shape[-1]))).flatten(0, 1)
    spectrum = torch.stft(
        rows, n_fft, n_fft // 4, window=window, center=False, return_complex=True
    ).unflatten(0, x.shape[:2])  # [B, C, N, F]
    planes = torch.cat([spectrum.real, spectrum.imag], dim=1) / window.square().sum().sqrt()
    return planes.mT
