"""A hierarchy of codes on the spectral frames of `spec_frame`: coarse levels say what, fine ones how exactly.

    features (frames, the finest rate) --join--> features of the next coarser level --join--> ...
    coarse:  z = Q(features),                      context = blocks(z)
    finer:   z = Q(features beside the context),   context = blocks(context, split into more frames, + z)
    the finest context -> the decoder of spec_frame

So a level codes what those above it leave open. (VQ-VAE-2: Razavi 2019; here in time, as Jukebox, but in one net.) In
training some items lose their fine levels: a z that is missing is zero, and the decoder learns to do without. One model
then decodes from the top alone, from two levels or from all, each adding detail.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from audiovae.bottlenecks import (
    AnyBottleneckConfig,
    Bottled,
    Bottleneck,
    RVQConfig,
    build_bottleneck,
)
from audiovae.errors import ConfigError
from audiovae.models.base import Context
from audiovae.models.levels import expect_levels, fold, unfold
from audiovae.models.spec_frame import SpecFrame, SpecFrameConfig, spec_frame
from audiovae.nn.blocks import FrameBlock, frame_margins


class HierarchyConfig(SpecFrameConfig):
    """What a hierarchy is made of; frames and blocks outside are those of `spec_frame`."""

    kind: Literal["hierarchy"] = "hierarchy"  # type: ignore[assignment]
    bottleneck: AnyBottleneckConfig = RVQConfig(n_codebooks=4, dropout=0.0)  # of each level
    level_strides: tuple[Annotated[int, Field(ge=2)], ...] = Field(
        (2, 2), min_length=1
    )  # frames of a level to one of the level above, coarse first
    level_depth: int = Field(1, ge=0)  # blocks of a level on each side
    level_dropout: float = Field(0.5, ge=0, le=1)  # share of training items that keep 1..all levels

    @model_validator(mode="after")
    def _levels_have_codes(self) -> HierarchyConfig:
        if self.bottleneck.kind == "gaussian":
            raise ValueError("the levels need codes; set bottleneck.kind to rvq, vq or fsq")
        return self

    @property
    def finest_hop_length(self) -> int:
        """Samples that a frame of the finest level stands for."""
        return self.frame_hop * self.stride

    @property
    def rates(self) -> tuple[int, ...]:
        """Frames of each level to one of the coarsest, coarse first."""
        return tuple(math.prod(self.level_strides[:n]) for n in range(len(self.level_strides) + 1))

    @property
    def hop_length(self) -> int:
        """Samples that a frame of the coarsest level stands for."""
        return self.finest_hop_length * self.rates[-1]


def hierarchy(
    size: int = 2,
    *,
    sample_rate: int = 44_100,
    channels: int = 2,
    levels: int = 3,
    n_codebooks: int | None = None,
    codebook_size: int | None = None,
) -> HierarchyConfig:
    """Return the config of a hierarchy; size 0 (tests) to 5 as for `spec_frame`.

    The finest level has 43 frames a second at 44.1 kHz (47 at 24 kHz), each above it half as many. Every frame has 4 codes
    of 512: 390, 780 and 1550 bits a second. At size 0 it has 2 of 16.
    Raises ConfigError for another size or fewer than 2 levels.
    """
    if levels < 2:
        raise ConfigError(f"a hierarchy has at least 2 levels, got {levels}; 2 or 3 suit")
    outside = spec_frame(size, sample_rate=sample_rate, channels=channels)
    return HierarchyConfig(
        **outside.model_dump(exclude={"kind", "bottleneck"}),
        bottleneck=RVQConfig(
            latent_dim=outside.bottleneck.latent_dim,
            n_codebooks=n_codebooks or (4 if size else 2),
            codebook_size=codebook_size or (512 if size else 16),
            decay=0.9,  # a CPU's step has some hundred frames: codes must follow the net's first steps
            dropout=0.0,
        ),
        level_strides=(2,) * (levels - 1),
    )


class Hierarchy(SpecFrame):
    """`spec_frame` around levels of codes.  z [B, D, F] holds what they say together, F the coarsest level's frames."""

    config: HierarchyConfig
    bottleneck: Levels

    def __init__(self, config: HierarchyConfig) -> None:
        super().__init__(config)
        self.bottleneck = Levels(config)  # where spec_frame has one bottleneck at the finest rate

    def bottle(
        self, x: Tensor, *, sample: bool, generators: Sequence[torch.Generator] = ()
    ) -> Bottled:
        """x [B, C, F * hop_length] -> Bottled with codes [B, K, F * rate] for each level."""
        bottled = super().bottle(x, sample=sample, generators=generators)
        return bottled._replace(z=fold(bottled.z, self.config.rates[-1]))

    def synthesise(self, z: Tensor) -> Tensor:
        """z [B, D, F] -> x_hat [B, C, F * hop_length]."""
        return super().synthesise(unfold(z, self.config.rates[-1]))

    def from_codes(self, codes: Sequence[Tensor]) -> Tensor:
        """Codes [B, K, F * rate] of one or more levels, coarse first -> z [B, D, F].

        Raises LatentError for codes out of range, of too many levels or of lengths that do not fit.
        """
        expect_levels(codes, self.config.rates)
        return fold(self.bottleneck.from_levels(codes), self.config.rates[-1])

    @property
    def latent_dim(self) -> int:
        """Numbers in one latent frame."""
        return self.config.bottleneck.latent_dim * self.config.rates[-1]

    @property
    def codebook_sizes(self) -> tuple[tuple[int, ...], ...]:
        """For each level, coarse first: how many codes each of its codebooks has."""
        return tuple(level.quantiser.codebook_sizes for level in self.bottleneck.each)

    @property
    def code_rates(self) -> tuple[float, ...]:
        """Frames of codes per second of each level."""
        return tuple(self.frame_rate * rate for rate in self.config.rates)

    @property
    def encoder_context(self) -> Context:
        """Samples before and after a latent frame's own that can change it."""
        frame, reach = super().encoder_context, self.bottleneck.reach
        hop = self.config.finest_hop_length
        return Context(reach.left * hop + frame.left, reach.right * hop + frame.right)

    @property
    def decoder_context(self) -> Context:
        """Latent frames before and after a frame's own that can change its samples."""
        left, right = super().decoder_context
        rate = self.config.rates[-1]
        return Context(-(-left // rate), -(-right // rate))


class Levels(Bottleneck):
    """h [B, W, frames of the finest level] -> z [B, D, the same frames] and codes at all rates, coarse first."""

    def __init__(self, config: HierarchyConfig) -> None:
        super().__init__()
        self.config = config
        self.levels = nn.ModuleList(Level(config, number) for number in range(len(config.rates)))
        self.settle = nn.Linear(config.latent_width, config.bottleneck.latent_dim)

    def forward(
        self, h: Tensor, *, sample: bool, generators: Sequence[torch.Generator] = ()
    ) -> Bottled:
        """Quantise, coarse to fine; in training `sample` lets items lose fine levels."""
        features = [h.mT]  # [B, F, W], coarse first
        for level in self.each[-2::-1]:
            features.insert(0, level.listen(features[0]))
        kept = self._kept(len(h), generators) if sample and self.training else None
        found: list[Bottled] = []

        def quantised(number: int, context: Tensor | None) -> Tensor:
            level = self.each[number]
            seen = level.merged(features[number], context).mT  # [B, W, F]
            found.append(level.quantiser(seen, sample=sample, generators=generators))
            z = found[-1].z
            if kept is not None:
                z = z * (kept > number).to(z)[:, None, None]
            return z

        z = self._descend(quantised)
        terms = {n: torch.stack([b.terms[n] for b in found]).sum() for n in found[0].terms}
        return Bottled(z=z, codes=tuple(b.codes[0] for b in found), moments=None, terms=terms)

    def from_levels(self, codes: Sequence[Tensor]) -> Tensor:
        """Codes of one or more levels, coarse first -> z; a level that is not given says nothing."""
        rates, dim = self.config.rates, self.config.bottleneck.latent_dim
        items, _, frames = codes[0].shape

        def given(number: int, context: Tensor | None) -> Tensor:
            if number < len(codes):
                return self.each[number].quantiser.from_codes(codes[number])
            assert context is not None  # the coarsest level is always given
            return context.new_zeros(items, dim, frames * rates[number])

        return self._descend(given)

    @property
    def each(self) -> list[Level]:
        """The levels, coarse first."""
        return [level for level in self.levels if isinstance(level, Level)]

    @property
    def reach(self) -> Context:
        """Frames of the finest level before and after those of a coarsest frame that can change its z."""
        c = self.config
        left, right = (c.level_depth * side for side in frame_margins(c.kernel_size, c.causal))
        first, last = 0, c.rates[-1] - 1
        for stride in (
            *c.level_strides[::-1],
            1,
        ):  # down through the decoders to the coarsest level
            first, last = (first - left) // stride, (last + right) // stride
        for stride in c.level_strides:  # and back through the encoders
            first, last = (first - left) * stride, (last + right + 1) * stride - 1
        return Context(-first, last - (c.rates[-1] - 1))

    def _descend(self, z_of: Callable[[int, Tensor | None], Tensor]) -> Tensor:
        """From level to level, where z_of(number, context) is [B, D, F * rate]."""
        context: Tensor | None = None
        for number, level in enumerate(self.each):
            context = level.speak(z_of(number, context), context)
        z: Tensor = self.settle(context).mT
        return z

    def _kept(self, items: int, generators: Sequence[torch.Generator]) -> Tensor:
        """How many levels each item keeps: all, or with chance `level_dropout` any number from 1 on.  [B]."""
        sources = list(generators) or [torch.default_generator] * items
        count, kept = len(self.levels), []
        for source in sources:
            drop = float(torch.rand((), generator=source)) < self.config.level_dropout
            fewer = int(torch.randint(1, count + 1, (), generator=source))
            kept.append(fewer if drop else count)
        return torch.tensor(kept, device=self.settle.weight.device)


class Level(nn.Module):
    """One rate; number 0 is the coarsest."""

    def __init__(self, config: HierarchyConfig, number: int) -> None:
        super().__init__()
        width, strides = config.latent_width, config.level_strides
        coarsest, finest = number == 0, number == len(strides)
        self.stride = 1 if finest else strides[number]  # frames of the finer level to one of this
        if not finest:  # the finest level's features come from spec_frame's own encoder
            self.join = nn.Linear(self.stride * width, width)
            self.encoder = self._blocks(config)
            self.split = nn.Linear(width, self.stride * width)
        self.merge = None if coarsest else nn.Linear(2 * width, width)
        rate = config.sample_rate / config.hop_length * config.rates[number]
        self.quantiser = build_bottleneck(config.bottleneck, width, rate)
        self.unfold = nn.Linear(config.bottleneck.latent_dim, width, bias=False)  # zero stays zero
        self.decoder = self._blocks(config)

    def listen(self, finer: Tensor) -> Tensor:
        """Features of the next finer level [B, F * stride, W] -> of this one, [B, F, W]."""
        h: Tensor = self.encoder(self.join(finer.unflatten(1, (-1, self.stride)).flatten(2)))
        return h

    def merged(self, features: Tensor, context: Tensor | None) -> Tensor:
        """What there is to code, beside what is known of it.  [B, F, W]."""
        if self.merge is None or context is None:
            return features
        h: Tensor = self.merge(torch.cat([features, context], 2))
        return h

    def speak(self, z: Tensor, context: Tensor | None) -> Tensor:
        """z [B, D, F] and the context of this rate -> the next finer level's, [B, F * stride, W]."""
        said = self.unfold(z.mT)
        h: Tensor = self.decoder(said if context is None else context + said)
        if self.stride == 1:
            return h
        split: Tensor = self.split(h).unflatten(2, (self.stride, -1)).flatten(1, 2)
        return split

    def _blocks(self, c: HierarchyConfig) -> nn.Sequential:
        return nn.Sequential(
            *(
                FrameBlock(c.latent_width, c.kernel_size, c.expansion, c.causal)
                for _ in range(c.level_depth)
            )
        )
