"""Jukebox's VQ-VAE: three separate autoencoders at three rates (Dhariwal 2020, arXiv 2005.00341).

    hop 8, 32, 128 samples; each level for itself:  x -> encoder -> VQ of 2048 codes x 64 -> decoder -> x_hat

    encoder   for each halving a conv 4 of stride 2 and residual units (ReLU, dilated conv 3, ReLU, conv 1; dilations
              1, 3, 9, ...); conv 3 to 64; on top of these for the next coarser level the same again
    decoder   the mirror with transposed convs, dilations falling; conv 3 to the sound

Every level learns from its own reconstruction, by the terms of losses/jukebox.py summed over the levels. It is the
codes that make a hierarchy of them: a prior writes the coarse ones first. A decoder hears only its own level, so a sound
is decoded from the finest level that is given.

To specification, not verified against the original's weights. At the published size, filled with the same random
weights, codes and sounds of every level equalled those of the JukeboxVQVAE of transformers 4.38; later versions have none,
so no test can repeat it. Our own are the bandwidths (see the losses) and the revival of codes (bottlenecks/codebook.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from audiovae.bottlenecks import Bottled, VQConfig, build_bottleneck
from audiovae.errors import ConfigError
from audiovae.losses import jukebox as losses
from audiovae.models.base import Autoencoder, Context, ModelConfig, Reconstruction
from audiovae.models.levels import expect_levels, fold, unfold
from audiovae.nn.conv import inputs_of

SIZES = {  # width, residual units, halvings, numbers in a code, codes
    0: (4, 1, (2, 1, 1), 6, 16),  # the test model
    1: (16, 3, (3, 2, 2), 64, 1024),
    2: (32, 4, (3, 2, 2), 64, 2048),  # the published one
}

Count = Annotated[int, Field(ge=1)]


class JukeboxConfig(ModelConfig):
    """What the three autoencoders are made of.  Lists begin with the finest level."""

    kind: Literal["jukebox"] = "jukebox"
    channels: int = Field(1, ge=1, le=8)
    bottleneck: VQConfig = VQConfig(codebook_size=2048, update="ema")  # of each level
    halvings: tuple[Count, ...] = Field((3, 2, 2), min_length=1)  # from the sound or a finer level
    multiples: tuple[Count, ...] = (2, 1, 1)  # of width and depth
    width: int = Field(32, ge=1)  # channels of every conv inside
    depth: int = Field(4, ge=1)  # residual units beside each halving
    dilation_growth: int = Field(3, ge=1)  # from one unit to the next

    @model_validator(mode="after")
    def _one_multiple_a_level(self) -> JukeboxConfig:
        if len(self.multiples) != len(self.halvings):
            raise ValueError(
                f"each level needs its multiple, got {len(self.halvings)} levels and "
                f"{len(self.multiples)} multiples"
            )
        return self

    @property
    def default_objective(self) -> str:
        """Its own losses at their published weights."""
        return "jukebox"

    @property
    def hop_lengths(self) -> tuple[int, ...]:
        """Samples that a frame of each level stands for, coarse first."""
        return tuple(2**n for n in accumulate(self.halvings))[::-1]

    @property
    def hop_length(self) -> int:
        """Samples that a frame of the coarsest level stands for."""
        return self.hop_lengths[0]

    @property
    def rates(self) -> tuple[int, ...]:
        """Frames of each level to one of the coarsest, coarse first."""
        return tuple(self.hop_length // hop_length for hop_length in self.hop_lengths)


def jukebox(
    size: int = 2, *, sample_rate: int = 44_100, channels: int = 1, codebook_size: int | None = None
) -> JukeboxConfig:
    """Jukebox's VQ-VAE: frames of 8, 32 and 128 samples.  Size 2 is the published one, 0 the test model.

    Raises ConfigError for a size that is not 0 to 2.
    """
    if size not in SIZES:
        raise ConfigError(f"size must be 0 to 2, got {size}; 2 is the published net")
    width, depth, halvings, latent_dim, codes = SIZES[size]
    return JukeboxConfig(
        sample_rate=sample_rate,
        channels=channels,
        bottleneck=VQConfig(
            latent_dim=latent_dim, codebook_size=codebook_size or codes, update="ema"
        ),
        halvings=halvings,
        width=width,
        depth=depth,
    )


class Jukebox(Autoencoder):
    """Autoencoders of several rates side by side.  z holds the numbers of all levels, coarse first."""

    config: JukeboxConfig

    def __init__(self, config: JukeboxConfig) -> None:
        super().__init__(config)
        count = len(config.halvings)
        self.levels = nn.ModuleList(Level(config, number) for number in reversed(range(count)))

    def bottle(
        self, x: Tensor, *, sample: bool, generators: Sequence[torch.Generator] = ()
    ) -> Bottled:
        """x [B, C, T] -> Bottled with codes [B, 1, F * rate] for each level."""
        parts = [level.bottle(x, sample, generators) for level in self._levels]
        terms = {name: _summed(part.terms[name] for part in parts) for name in parts[0].terms}
        folded = [fold(part.z, rate) for part, rate in zip(parts, self.config.rates, strict=True)]
        codes = tuple(part.codes[0] for part in parts)
        return Bottled(z=torch.cat(folded, 1), codes=codes, moments=None, terms=terms)

    def reconstruct(
        self, bottled: Bottled, x: Tensor, *, generators: Sequence[torch.Generator] = ()
    ) -> Reconstruction:
        """Decode every level.  x [B, C, T] -> the finest level's x_hat, with the losses of all.

        The terms are those of the bottlenecks and "l2", "linf" and "multispectral", each summed over the levels.
        """
        parts = zip(self._levels, self._parts(bottled.z), strict=True)
        sounds = [level.decoder(part)[..., : x.shape[-1]] for level, part in parts]
        kind = torch.promote_types(x.dtype, torch.float32)
        heard, target = [sound.to(kind) for sound in sounds], x.detach().to(kind)
        terms = bottled.terms | {
            "l2": _summed(losses.l2(x_hat, target) for x_hat in heard),
            "linf": _summed(losses.linf(x_hat, target) for x_hat in heard),
            "multispectral": _summed(losses.multispectral(x_hat, target) for x_hat in heard),
        }
        return Reconstruction(sounds[-1], bottled.z, bottled.codes, None, terms)

    def synthesise(self, z: Tensor) -> Tensor:
        """z [B, D, F] -> x_hat [B, C, F * hop_length], each item from its finest level whose numbers are not all zero."""
        parts = self._parts(z)
        there = torch.stack([part.flatten(1).any(1) for part in parts])  # [levels, B]
        finest = [max(column.nonzero().flatten().tolist(), default=0) for column in there.unbind(1)]
        x_hat = z.new_empty(len(z), self.channels, z.shape[-1] * self.hop_length)
        for number in set(finest):
            items = [item for item, level in enumerate(finest) if level == number]
            x_hat[items] = self._levels[number].decoder(parts[number][items]).to(x_hat)
        return x_hat

    def from_codes(self, codes: Sequence[Tensor]) -> Tensor:
        """Codes [B, 1, F * rate] of one or more levels, coarse first -> z [B, D, F], zeros for levels not given.

        Raises LatentError for codes out of range, of too many levels or of lengths that do not fit.
        """
        rates = self.config.rates
        expect_levels(codes, rates)
        given = zip(self._levels, codes, rates, strict=False)
        parts = [fold(level.bottleneck.from_codes(c), rate) for level, c, rate in given]
        missing = self.latent_dim - sum(part.shape[1] for part in parts)
        return nn.functional.pad(torch.cat(parts, 1), (0, 0, 0, missing))

    @property
    def latent_dim(self) -> int:
        """Numbers in one latent frame: a code of the coarsest level and all the finer ones beside it."""
        return self.config.bottleneck.latent_dim * sum(self.config.rates)

    @property
    def codebook_sizes(self) -> tuple[tuple[int, ...], ...]:
        """For each level, coarse first: how many codes each of its codebooks has."""
        return tuple(level.bottleneck.codebook_sizes for level in self._levels)

    @property
    def code_rates(self) -> tuple[float, ...]:
        """Frames of codes per second of each level."""
        return tuple(self.frame_rate * rate for rate in self.config.rates)

    @property
    def encoder_context(self) -> Context:
        """Samples before the first and after the last one of a latent frame that can change it."""
        spans = [
            inputs_of(level.encoder, 0, rate - 1)
            for level, rate in zip(self._levels, self.config.rates, strict=True)
        ]
        last = max(span[1] for span in spans)
        return Context(-min(span[0] for span in spans), last - (self.hop_length - 1))

    @property
    def decoder_context(self) -> Context:
        """Latent frames before and after a frame that can change its hop_length samples, whatever levels are given."""
        spans = [inputs_of(level.decoder, 0, self.hop_length - 1) for level in self._levels]
        rates = self.config.rates
        first = min(span[0] // rate for span, rate in zip(spans, rates, strict=True))
        return Context(-first, max(s[1] // rate for s, rate in zip(spans, rates, strict=True)))

    @property
    def _levels(self) -> list[Level]:
        return [level for level in self.levels if isinstance(level, Level)]

    def _parts(self, z: Tensor) -> list[Tensor]:
        """Each level's numbers at its own rate, [B, D, F * rate]."""
        rates = self.config.rates
        sizes = [self.config.bottleneck.latent_dim * rate for rate in rates]
        return [unfold(part, rate) for part, rate in zip(z.split(sizes, 1), rates, strict=True)]


class Level(nn.Module):
    """One autoencoder; level 0 is the finest."""

    def __init__(self, config: JukeboxConfig, number: int) -> None:
        super().__init__()
        frame_rate = config.sample_rate / config.hop_lengths[-1 - number]
        self.encoder = encoder(config, number)
        self.bottleneck = build_bottleneck(config.bottleneck, None, frame_rate)
        self.decoder = decoder(config, number)

    def bottle(self, x: Tensor, sample: bool, generators: Sequence[torch.Generator]) -> Bottled:
        """x [B, C, T] -> Bottled at this level's rate."""
        h = self.encoder(x)
        bottled: Bottled = self.bottleneck(h, sample=sample, generators=generators)
        return bottled


def encoder(config: JukeboxConfig, number: int) -> nn.Sequential:
    """x [B, C, T] -> h [B, D, T / hop] of a level."""
    width, dilations = _shape(config, number)
    layers: list[nn.Module] = []
    narrow = config.channels
    for halvings in config.halvings[: number + 1]:
        for _ in range(halvings):
            layers.append(nn.Conv1d(narrow, width, 4, 2, padding=1))
            layers += [ResidualUnit(width, dilation) for dilation in dilations]
            narrow = width
        narrow = config.bottleneck.latent_dim
        layers.append(nn.Conv1d(width, narrow, 3, padding=1))
    return nn.Sequential(*layers)


def decoder(config: JukeboxConfig, number: int) -> nn.Sequential:
    """z [B, D, T / hop] of a level -> x_hat [B, C, T]."""
    width, dilations = _shape(config, number)
    layers: list[nn.Module] = []
    narrow = config.bottleneck.latent_dim
    for halvings in reversed(config.halvings[: number + 1]):
        layers.append(nn.Conv1d(narrow, width, 3, padding=1))
        for left in reversed(range(halvings)):
            layers += [ResidualUnit(width, dilation) for dilation in reversed(dilations)]
            layers.append(nn.ConvTranspose1d(width, width if left else narrow, 4, 2, padding=1))
    return nn.Sequential(*layers, nn.Conv1d(narrow, config.channels, 3, padding=1))


class ResidualUnit(nn.Module):
    """h + conv 1(ReLU(dilated conv 3(ReLU(h)))).  h [B, W, F]."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.ReLU(),
            nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation),
            nn.ReLU(),
            nn.Conv1d(width, width, 1),
        )

    def forward(self, h: Tensor) -> Tensor:
        """Add what the branch found."""
        out: Tensor = h + self.branch(h)
        return out


def _shape(config: JukeboxConfig, number: int) -> tuple[int, list[int]]:
    """Width and dilations of a level."""
    multiple = config.multiples[number]
    dilations = [config.dilation_growth**unit for unit in range(config.depth * multiple)]
    return config.width * multiple, dilations


def _summed(terms: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum()
