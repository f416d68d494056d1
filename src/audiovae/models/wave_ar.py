"""WaveVAE: a frame-rate Gaussian latent of a sound, and a WaveNet that says it again sample by sample.

    x -> mu-law curve -> dilated convolutions -> mean over each frame's samples -> mu, logvar        (NSynth: Engel et al. 2017)
    log p(x | z) = sum_t log p(x_t | x_1, ..., x_t-1, z)          the WaveNet's, with z in every layer

Trained on -log p(x | z) and the KL, together the ELBO. A decoder that hears its own past can do without z: keep it used with
`objective.free_bits` or `objective.target_rate`.

What comes back has two meanings here, and they differ:

    forward   x_hat is what the net expects of each sample given the true ones before it: it flatters, no listener has those
    decode    draws sample by sample from what the net says of its own past: this is what the latent alone brings back

`decode` draws with numbers seeded alike each time, so that it is a function of the latent; `speaker` takes others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from audiovae.bottlenecks import AnyBottleneckConfig, Bottled, GaussianConfig, build_bottleneck
from audiovae.errors import ConfigError
from audiovae.models import wave_kernel
from audiovae.models.base import UNLIMITED, Autoencoder, Context, ModelConfig, Reconstruction
from audiovae.nn.conv import inputs_of, same_conv
from audiovae.nn.next_sample import UNIFORMS, LogisticMixture, MuLaw, NextSample, compress
from audiovae.nn.wavenet import DilatedUnit, Stepper, WaveNet

PIECE_FRAMES = 16  # generated at a time, in which Ctrl-C waits
DRAW_SEED = 0  # of `decode`


class WaveVAEConfig(ModelConfig):
    """Everything that makes a WaveVAE; the preset `wave_vae` derives it from a size."""

    kind: Literal["wave_vae"] = "wave_vae"
    sample_rate: int = Field(24_000, ge=1_000, le=384_000)  # Hz
    channels: int = Field(1, ge=1, le=8)  # one; more are coded each alone
    bottleneck: AnyBottleneckConfig = GaussianConfig(latent_dim=16)
    stride: int = Field(512, ge=1)  # samples under one latent frame
    encoder_width: int = Field(64, ge=1)
    encoder_layers: int = Field(30, ge=1)
    width: int = Field(64, ge=1)  # W of the WaveNet
    layers: int = Field(30, ge=1)
    cycle: int = Field(10, ge=1)  # layers after which the dilation, doubled by each, is 1 again
    output: Literal["mu_law", "logistic_mixture"] = "mu_law"  # the distribution of a sample
    n_mixtures: int = Field(10, ge=1)  # of "logistic_mixture"
    temperature: float = Field(1.0, ge=0)  # of `decode`; 0 takes the most probable value each time

    @model_validator(mode="after")
    def _one_channel(self) -> WaveVAEConfig:
        if self.channels != 1:
            raise ValueError(
                f"a WaveVAE has 1 channel, got {self.channels}; "
                "sounds of more are coded channel by channel with --per-channel"
            )
        return self

    @property
    def default_objective(self) -> str:
        """The ELBO, with the model's own likelihood."""
        return "likelihood"

    @property
    def hop_length(self) -> int:
        """Samples that one latent frame stands for."""
        return self.stride

    def dilations(self, layers: int) -> list[int]:
        """1, 2, 4, ... for as many layers."""
        return [2 ** (layer % self.cycle) for layer in range(layers)]


class WaveVAE(Autoencoder):
    """x [B, 1, T] <-> z [B, D, ceil(T / hop_length)], trained on its own likelihood."""

    config: WaveVAEConfig

    def __init__(self, config: WaveVAEConfig) -> None:
        super().__init__(config)
        self.family: NextSample = (
            MuLaw() if config.output == "mu_law" else LogisticMixture(config.n_mixtures)
        )
        dilations = config.dilations(config.layers)
        self.encoder = Encoder(config.encoder_width, config.dilations(config.encoder_layers))
        self.bottleneck = build_bottleneck(
            config.bottleneck, config.encoder_width, config.frame_rate
        )
        self.decoder = WaveNet(config.width, dilations, self.family.n_parameters)
        self.condition = nn.Conv1d(self.latent_dim, self.decoder.condition_width, 1)

    def reconstruct(
        self, bottled: Bottled, x: Tensor, *, generators: Sequence[torch.Generator] = ()
    ) -> Reconstruction:
        """Hear how likely the sound is.  x [B, 1, T] -> terms "nll" (nats per second) and "kl".

        x_hat [B, 1, T] is the expected sample given z and the true samples before it, in training and in evaluation.
        """
        said = self.predict(x, bottled.z)
        x_hat = self.family.mean(said)[:, None]
        seconds = x.shape[-1] / self.sample_rate
        nll = -self.family.log_prob(said, x[:, 0]).sum(1).mean() / seconds
        return Reconstruction(x_hat, *bottled._replace(terms=bottled.terms | {"nll": nll}))

    def predict(self, x: Tensor, z: Tensor) -> Tensor:
        """What the net says before each sample of x, hearing the true ones: x [B, 1, T], z [B, D, F] -> [B, P, T]."""
        length, whole = x.shape[-1], z.shape[-1] * self.hop_length
        heard = compress(self.family.quantise(x[:, 0, :-1]))
        heard = nn.functional.pad(heard, (1, whole - length))  # the first one hears silence
        said: Tensor = self.decoder(heard, self.condition(z))
        return said[..., :length]

    def bottle(
        self, x: Tensor, *, sample: bool, generators: Sequence[torch.Generator] = ()
    ) -> Bottled:
        """x [B, 1, F * hop_length] -> Bottled."""
        h = self.encoder(compress(x))  # [B, W, T]
        frames = h.unflatten(2, (-1, self.hop_length)).mean(3)  # [B, W, F]
        bottled: Bottled = self.bottleneck(frames, sample=sample, generators=generators)
        return bottled

    def synthesise(self, z: Tensor) -> Tensor:
        """z [B, D, F] -> x_hat [B, 1, F * hop_length], drawn sample by sample, alike for each item and each time."""
        return self.speaker(len(z)).go_on(z)

    def begin_decoding(self) -> Callable[[Tensor], Tensor]:
        """A speaker that hears what it said of the pieces before."""
        return self.speaker(1).go_on

    def speaker(
        self,
        batch: int,
        *,
        temperature: float | None = None,
        generators: Sequence[torch.Generator] = (),
    ) -> Speaker:
        """Begin to generate: one generator an item, by default all seeded alike; the temperature is the config's."""
        chosen = self.config.temperature if temperature is None else temperature
        if chosen < 0:
            raise ConfigError(f"temperature must be from 0 on, got {chosen:g}")
        seeded = [torch.Generator().manual_seed(DRAW_SEED) for _ in range(batch)]
        return Speaker(self, chosen, generators or seeded)

    @property
    def encoder_context(self) -> Context:
        """Samples before the first and after the last one of a latent frame that can change it."""
        first, last = inputs_of(self.encoder, 0, 0)
        return Context(-first, last)

    @property
    def decoder_context(self) -> Context:
        """Through the samples that it hears, all earlier frames; no later one."""
        return Context(UNLIMITED, 0)


class Encoder(nn.Module):
    """x [B, 1, T] -> h [B, W, T]; NSynth's, at the rate of the sound."""

    def __init__(self, width: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.first = same_conv(1, width, 3)
        self.units = nn.Sequential(*(DilatedUnit(width, dilation) for dilation in dilations))

    def forward(self, x: Tensor) -> Tensor:
        """Listen ever further to both sides."""
        h: Tensor = self.units(self.first(x))
        return h


class Voice(Protocol):
    """What generates: the C kernel, or torch."""

    def draw(self, condition: Tensor, uniforms: Tensor, temperature: float) -> Tensor:
        """condition [B, C, F], uniforms [B, T, 2] float64, F a divisor of T -> x [B, T]."""


class Speaker:
    """A batch of sounds that are being generated.  Remembers what it said: pieces equal the whole.

    It works on the CPU where there is a compiler, wherever the model is: there one sample after another is fastest. Under
    CPU autocast its weights are held in bf16, which doubles the speed.
    """

    def __init__(
        self, model: WaveVAE, temperature: float, generators: Sequence[torch.Generator]
    ) -> None:
        self.model, self.temperature, self.generators = model, temperature, generators
        compiled = wave_kernel.library()
        self.voice: Voice
        if compiled is None:
            self.voice = TorchVoice(model.decoder, model.family, len(generators))
        else:
            self.voice = wave_kernel.KernelVoice(
                compiled,
                model.decoder,
                model.family,
                len(generators),
                "bf16" if torch.is_autocast_enabled("cpu") else "fp32",
            )

    @torch.no_grad()
    def go_on(self, z: Tensor) -> Tensor:
        """Say what comes next: z [B, D, F] -> x_hat [B, 1, F * hop_length]."""
        pieces = [self._say(piece) for piece in z.split(PIECE_FRAMES, dim=2)]
        return torch.cat(pieces, dim=1)[:, None].to(z.device)

    def _say(self, z: Tensor) -> Tensor:
        shape = (z.shape[-1] * self.model.hop_length, UNIFORMS)
        drawn = [torch.rand(shape, dtype=torch.float64, generator=g) for g in self.generators]
        with torch.autocast(z.device.type, enabled=False):
            # one by one: a batch's convolution may round otherwise, and what is drawn would drift apart
            said = [self.model.condition(item) for item in z.float().split(1)]
            condition = torch.cat(said)  # [B, C, F]
        return self.voice.draw(condition, torch.stack(drawn), self.temperature)


class TorchVoice:
    """A WaveNet that hears itself, with torch alone: a few operations a layer and sample."""

    def __init__(self, net: WaveNet, family: NextSample, batch: int) -> None:
        self.stepper, self.family = Stepper(net, batch), family
        self.heard = net.first.weight.new_zeros(batch)  # the last sample, on mu-law's curve

    @torch.no_grad()
    def draw(self, condition: Tensor, uniforms: Tensor, temperature: float) -> Tensor:
        """condition [B, C, F], uniforms [B, T, 2] float64, F a divisor of T -> x [B, T]."""
        hop = uniforms.shape[1] // condition.shape[2]
        samples: list[Tensor] = []
        for t in range(uniforms.shape[1]):
            said = self.stepper.step(self.heard, condition[..., t // hop])
            samples.append(self.family.draw(said.cpu(), uniforms[:, t], temperature))
            self.heard = compress(samples[-1]).to(said.device)
        return torch.stack(samples, dim=1)


class _Size(NamedTuple):
    width: int
    layers: int
    cycle: int
    stride: int
    latent_dim: int


SIZES = {
    0: _Size(8, 4, 2, 64, 8),  # the test model
    1: _Size(32, 20, 10, 512, 16),
    2: _Size(64, 30, 10, 512, 16),  # the default: generates faster than real time on one core
    3: _Size(128, 30, 10, 512, 16),
    4: _Size(256, 30, 10, 512, 32),
}


def wave_vae(
    size: int = 2,
    *,
    sample_rate: int = 24_000,
    channels: int = 1,
    latent_dim: int | None = None,
    output: Literal["mu_law", "logistic_mixture"] = "mu_law",
) -> WaveVAEConfig:
    """Return the config of a WaveVAE.

    size 0 (tests) to 4; the default 2 has 30 layers of 64 channels, and 16 latents 47 times a second at 24 kHz. Raises
    ConfigError for another size, ValueError for more than one channel.
    """
    if size not in SIZES:
        raise ConfigError(f"size must be one of {sorted(SIZES)}, got {size}")
    chosen = SIZES[size]
    return WaveVAEConfig(
        sample_rate=sample_rate,
        channels=channels,
        bottleneck=GaussianConfig(latent_dim=latent_dim or chosen.latent_dim),
        stride=chosen.stride,
        encoder_width=chosen.width,
        encoder_layers=chosen.layers,
        width=chosen.width,
        layers=chosen.layers,
        cycle=chosen.cycle,
        output=output,
    )
