"""What a model is: an encoder, a bottleneck, a decoder, and the numbers that others need to know of them.

Time is counted in two units: samples (T) on the outside, latent frames (F) inside; one latent frame stands for
`hop_length` samples, and a sound of T samples has ceil(T / hop_length) frames.
"""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from audiovae.bottlenecks import AnyBottleneckConfig, Bottled, Bottleneck, GaussianConfig
from audiovae.config import Config
from audiovae.errors import LatentError, expect_latent, expect_waveform
from audiovae.latents import LatentStatistics
from audiovae.nn.noise import mix


class ModelConfig(Config):
    """The part of a model's config that every family has."""

    sample_rate: int = Field(44_100, ge=1_000, le=384_000)  # Hz
    channels: int = Field(2, ge=1, le=8)  # C
    bottleneck: AnyBottleneckConfig = GaussianConfig()

    @property
    def default_objective(self) -> str:
        """The named objective (training/objective.py) that trains this family."""
        return "spectral"

    @property
    def hop_length(self) -> int:
        """Samples that one latent frame stands for."""
        raise NotImplementedError(f"{type(self).__name__} must say its hop_length")

    @property
    def frame_rate(self) -> float:
        """Latent frames per second."""
        return self.sample_rate / self.hop_length


UNLIMITED = sys.maxsize  # of a Context: everything before, or after, has a say


class Context(NamedTuple):
    """How far a result reaches beyond its own unit, to the left and to the right; it may be UNLIMITED."""

    left: int
    right: int


class Unit(NamedTuple):
    """The finest grid that samples and latent frames have in common."""

    samples: int
    frames: int


class Reconstruction(NamedTuple):
    """What `forward` returns: the sound that came back, and what the bottleneck said on the way."""

    x_hat: Tensor  # [B, C, T]
    z: Tensor  # [B, D, F]
    codes: tuple[Tensor, ...]
    moments: tuple[Tensor, Tensor] | None
    terms: dict[str, Tensor]  # unweighted scalars of the bottleneck and of the family
    mask: Tensor | None = None  # [B, F] bool, False in the frames that an item lacks


class Autoencoder(nn.Module):
    """Base of every family: checks at the border, `encode` / `decode` / `forward` in one form.

    A family gives `bottle` and `synthesise`, and the two contexts, and `reconstruct` if it has terms of its own; one whose bottleneck is not `self.bottleneck` gives
    `codebook_sizes` and `from_codes` too.
    """

    config: ModelConfig
    bottleneck: Bottleneck
    model_hash: str | None = None  # of the files it was loaded from; None if it was not
    extra_terms: frozenset[str] = frozenset()  # of the family's own, those only on request
    statistics: LatentStatistics | None = (
        None  # of the latent over the data, where they were stored
    )

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def bottle(
        self, x: Tensor, *, sample: bool, generators: Sequence[torch.Generator] = ()
    ) -> Bottled:
        """x [B, C, T], T a multiple of hop_length -> Bottled with F = T / hop_length frames."""

    @abstractmethod
    def synthesise(self, z: Tensor) -> Tensor:
        """z [B, D, F] -> x_hat [B, C, F * hop_length]."""

    @property
    @abstractmethod
    def encoder_context(self) -> Context:
        """Samples before the first and after the last one of a unit that can change its latent frames."""

    @property
    @abstractmethod
    def decoder_context(self) -> Context:
        """Latent frames before and after those of a unit that can change its samples."""

    @property
    def unit(self) -> Unit:
        """A latent frame and its hop_length samples; a family that codes longer segments gives those."""
        return Unit(self.hop_length, 1)

    def frames_of(self, length: int) -> int:
        """Latent frames of a sound of so many samples."""
        return -(-length // self.hop_length)

    @property
    def sample_rate(self) -> int:
        """Samples per second and channel, in Hz."""
        return self.config.sample_rate

    @property
    def channels(self) -> int:
        """Audio channels, C."""
        return self.config.channels

    @property
    def hop_length(self) -> int:
        """Samples that one latent frame stands for."""
        return self.config.hop_length

    @property
    def frame_rate(self) -> float:
        """Latent frames per second."""
        return self.config.frame_rate

    @property
    def latent_dim(self) -> int:
        """Numbers in one latent frame, D."""
        return self.config.bottleneck.latent_dim

    @property
    def codebook_sizes(self) -> tuple[tuple[int, ...], ...]:
        """For each level of codes, coarse first: how many codes each of its K codebooks has; empty if continuous."""
        sizes = self.bottleneck.codebook_sizes
        return (sizes,) if sizes else ()

    @property
    def code_rates(self) -> tuple[float, ...]:
        """Frames of codes per second of each of those levels."""
        return (self.frame_rate,) * len(self.codebook_sizes)

    @property
    def side_levels(self) -> int:
        """How many of the first levels are side information, not codebooks to leave out or to learn."""
        return 0

    @property
    def receptive_field(self) -> int:
        """Input samples that can change one sample of the reconstruction; UNLIMITED if all can."""
        behind = self._samples(self.decoder_context.left) + self.encoder_context.left
        ahead = self._samples(self.decoder_context.right) + self.encoder_context.right
        return min(behind + self.unit.samples + ahead, UNLIMITED)

    @property
    def delay(self) -> int:
        """Samples of input beyond time t that are needed before sample t can be given out; UNLIMITED: all."""
        ahead = self._samples(self.decoder_context.right) + self.encoder_context.right
        return min(self.unit.samples - 1 + ahead, UNLIMITED)

    def encode(
        self, x: Tensor, *, sample: bool = False, generators: Sequence[torch.Generator] = ()
    ) -> Bottled:
        """Encode a sound.  x [B, C, T] in [-1, 1], any T >= 1 -> z [B, D, ceil(T / hop_length)].

        The latent is the posterior's mean, or with `sample` a draw from it.
        Raises AudioError if x has another shape or number of channels.
        """
        expect_waveform(x, self.channels)
        padded = nn.functional.pad(x, (0, -x.shape[-1] % self.hop_length))
        return self.bottle(padded, sample=sample, generators=generators)

    def decode(self, latent: Tensor | Sequence[Tensor], length: int | None = None) -> Tensor:
        """Decode a latent z [B, D, F], or codes: [B, K, F] for each level, any number of the coarse ones.

        -> x_hat [B, C, length], at most F * hop_length samples.  Raises LatentError if the latent has another shape
        or a code is out of range.
        """
        z = latent if isinstance(latent, Tensor) else self.from_codes(latent)
        expect_latent(z, self.latent_dim)
        return self.synthesise(z)[..., :length]

    def from_codes(self, codes: Sequence[Tensor]) -> Tensor:
        """Codes of one or more levels, coarse first, [B, K, F] each with K from 1 to all codebooks -> z [B, D, F].

        Raises LatentError for codes out of range, of too many levels or codebooks, or if the latent is continuous.
        """
        if len(codes) != 1:
            raise LatentError(f"this model has one level of codes, got {len(codes)}")
        return self.bottleneck.from_codes(codes[0])

    def begin_decoding(self) -> Callable[[Tensor], Tensor] | None:
        """What decodes the pieces of one latent in order and remembers: z [1, D, F] -> x_hat [1, C, F * hop_length].

        For a decoder that hears its own past, which no halo of latent frames could tell it. None: a piece needs
        `decoder_context` and nothing else.
        """
        return None

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Tensor], seed: int = 0) -> None:
        """Take from some batches x [B, C, T] what no gradient need find; before the first step of a fresh model.

        As data-dependent initialisation does (Salimans & Kingma 2016): here codebooks, one bottleneck after the other.
        """
        fresh = [bottleneck for bottleneck in self._bottlenecks() if bottleneck.fresh]
        if not fresh:
            return
        sounds, training = list(batches), self.training
        self.eval()
        for number, bottleneck in enumerate(fresh):
            bottleneck.train()
            for x in sounds:
                self.encode(x)
            bottleneck.begin(mix(seed, number))
            bottleneck.eval()
        self.train(training)

    def commit(self, seed: int) -> None:
        """Let every bottleneck take over what a step, proved finite, has seen."""
        for number, bottleneck in enumerate(self._bottlenecks()):
            bottleneck.commit(mix(seed, number))

    def discard(self) -> None:
        """Let every bottleneck forget what a step has seen."""
        for bottleneck in self._bottlenecks():
            bottleneck.discard()

    def forward(
        self, x: Tensor, *, sample: bool = False, generators: Sequence[torch.Generator] = ()
    ) -> Reconstruction:
        """Encode and decode.  x [B, C, T] -> x_hat [B, C, T], with the bottleneck's result."""
        bottled = self.encode(x, sample=sample, generators=generators)
        return self.reconstruct(bottled, x, generators=generators)

    def reconstruct(
        self, bottled: Bottled, x: Tensor, *, generators: Sequence[torch.Generator] = ()
    ) -> Reconstruction:
        """The second half of `forward`: decode, and add the terms that only the family knows."""
        return Reconstruction(self.decode(bottled.z, x.shape[-1]), *bottled)

    def _samples(self, frames: int) -> int:
        """What so many latent frames stand for."""
        return -(-frames * self.unit.samples // self.unit.frames)

    def _bottlenecks(self) -> list[Bottleneck]:
        return [module for module in self.modules() if isinstance(module, Bottleneck)]
