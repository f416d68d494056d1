"""Patch discriminator: a complex spectrum in patches of bins, judged frame by frame by matrix products. Made for CPUs.

    x [B, C, T] -> mid/side -> X (|X|^2 + 1e-6)^((p - 1) / 2)  [B, F, P patches, 2 C bins]
    patch -> linear + place [W] -> blocks over frames (nn/blocks.py) -> linear -> a logit for each patch of each frame

The published ones spend their time in 2-D convolutions near the rate of the samples; here everything runs at the frame
rate, in products that bf16 makes fast. No norm over frames: a crop is judged as it is within the whole.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from audiovae.audio.spectra import stft
from audiovae.audio.stereo import mid_side
from audiovae.config import Config
from audiovae.losses.discriminators.base import Verdict
from audiovae.nn.blocks import FrameBlock


class PatchesConfig(Config):
    """Which resolutions, and the blocks of each."""

    kind: Literal["patches"] = "patches"
    n_ffts: tuple[Annotated[int, Field(ge=8, multiple_of=4)], ...] = Field(
        (2048, 512), min_length=1
    )  # samples in a frame; the hop is a quarter
    patch: int = Field(64, ge=1)  # bins in a patch, at most
    width: int = Field(64, ge=1)
    depth: int = Field(3, ge=1)  # blocks
    kernel_size: int = Field(5, ge=1)  # frames that a block mixes
    power: float = Field(0.3, gt=0, le=1)  # of the compression


class PatchesDiscriminator(nn.Module):
    """x [B, C, T] -> a verdict for each resolution."""

    def __init__(self, config: PatchesConfig, channels: int) -> None:
        super().__init__()
        self.judges = nn.ModuleList(
            _PatchesJudge(config, n_fft, channels) for n_fft in config.n_ffts
        )

    def forward(self, x: Tensor) -> list[Verdict]:
        """Judge at each resolution."""
        turned = mid_side(x) if x.shape[1] == 2 else x
        return [judge(turned) for judge in self.judges]


class _PatchesJudge(nn.Module):
    """One resolution."""

    def __init__(self, config: PatchesConfig, n_fft: int, channels: int) -> None:
        super().__init__()
        self.n_fft, self.power = n_fft, config.power
        self.patch = min(config.patch, n_fft // 2)
        patches = n_fft // 2 // self.patch
        self.listen = nn.Linear(2 * channels * self.patch, config.width)
        self.place = nn.Parameter(0.1 * torch.randn(patches, config.width))
        self.blocks = nn.ModuleList(
            FrameBlock(config.width, config.kernel_size, 2.0, causal=False)
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width)
        self.last = nn.Linear(config.width, 1)

    def forward(self, x: Tensor) -> Verdict:
        patches = self._patches(x)  # [B, F, P, 2 C bins]
        h = (self.listen(patches) + self.place).transpose(1, 2)  # [B, P, F, W]
        batch, h = h.shape[0], h.flatten(0, 1)
        seen = []
        for block in self.blocks:
            h = block(h)
            seen.append(h.unflatten(0, (batch, -1)))
        return Verdict(self.last(self.norm(h)).unflatten(0, (batch, -1)), tuple(seen))

    def _patches(self, x: Tensor) -> Tensor:
        """Compressed real and imaginary parts; the bins beyond the last whole patch are left out."""
        used = self.place.shape[0] * self.patch
        spectrum = stft(x.float().flatten(0, 1), self.n_fft)[..., :used]  # [B C, F, bins]
        power = spectrum.real.square() + spectrum.imag.square() + 1e-6
        scaled = torch.view_as_real(spectrum) * power.pow((self.power - 1) / 2)[..., None]
        cut = scaled.unflatten(2, (-1, self.patch)).flatten(3)  # [B C, F, P, 2 bins]
        together = cut.unflatten(0, x.shape[:2]).movedim(1, 3)  # [B, F, P, C, 2 bins]
        planes: Tensor = together.flatten(3)
        return planes
