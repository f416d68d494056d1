"""One training step of a variational autoencoder, from the sounds to the averaged weights.

    x -> model -> (x_hat, mu, logvar) -> objective -> gradient -> clip -> AdamW -> average of the weights
                                      -> discriminators, where there are any (training/adversarial.py)

The average follows decay = min(ema_decay, (1 + step) / (10 + step)), so that in a short run it is not still the
weights of the start (as in TensorFlow's ExponentialMovingAverage).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from audiovae.audio.compare import mel_distance, si_sdr, stft_distance
from audiovae.bottlenecks.codebook import Codebook
from audiovae.checkpoint import load_weights
from audiovae.data import Dataset
from audiovae.errors import ConfigError
from audiovae.models import Autoencoder, Reconstruction
from audiovae.nn.noise import generators, mix
from audiovae.training.adversarial import Adversary, Turn
from audiovae.training.checkpoints import State
from audiovae.training.config import TrainConfig
from audiovae.training.descent import Descent
from audiovae.training.device import autocast, uses_bf16
from audiovae.training.diagnostics import CodesMeter, CollapseAlarm, LatentMeter
from audiovae.training.distributed import ALONE, World, synchronised
from audiovae.training.feed import Part
from audiovae.training.generator import GeneratorHalf
from audiovae.training.instability import Variety
from audiovae.training.loop import Outcome
from audiovae.training.objective import AT_X_HAT, Objective, Weighed
from audiovae.training.schedules import Progress
from audiovae.training.tracking import Report

# streams of random numbers: the posterior's draw, anything else, validation, codes that are revived
NOISE, CHANCE, VALIDATION, CODES = 1, 2, 3, 4
CLIPS_TO_HEAR = 4
FAULTS = {  # figures of a step that must be finite, and what it is called if one is not
    "loss": "loss",
    "gradient_norm": "gradient",
    "discriminator": "discriminator's loss",
    "discriminator_norm": "discriminator's gradient",
}
WITHOUT_SOUND = ("likelihood", "spectrogram")  # default objectives whose x_hat has no gradient
Pair = tuple[Tensor, Tensor]  # x and x_hat, [B, C, T] each


class AutoencoderTask:
    """What the loop trains: a model, its objective, its optimizer and the average of its weights."""

    def __init__(
        self,
        model: Autoencoder,
        data: Dataset,
        config: TrainConfig,
        device: torch.device,
        world: World = ALONE,
    ) -> None:
        self.config = config
        self.data = data
        self.device = device
        self.world = world
        self.model = model.to(device).train()
        self.model.extra_terms = frozenset(n for n, w in config.objective.weights.items() if w > 0)
        self.product = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.objective = Objective(
            config.objective, model.sample_rate, model.config.default_objective
        ).to(device)
        self.alarm = CollapseAlarm()
        self.low_precision = uses_bf16(config.precision, device)
        self.adversary = self._adversary()
        trained = GeneratorHalf(self.model, self.objective, self.adversary)
        partly = self.adversary is not None and self.adversary.config.freeze_encoder
        self.forward = world.wrap(trained, device, partly=partly)
        self.descent = Descent(trained, config.optimizer)

    @property
    def cycle(self) -> int:
        """Steps after which the kinds of steps repeat."""
        return self.adversary.config.every if self.adversary else 1

    def step(self, parts: Sequence[Part], at: Progress) -> Outcome:
        """Make one update from some micro-batches.  A loss or gradient that is not finite changes nothing."""
        turn = self.adversary.turn(at) if self.adversary else Turn()
        buffers = [buffer.clone() for buffer in self._buffers()]
        if turn.generator:
            logs, pairs = self._accumulate_gradients(parts, at)
            logs["gradient_norm"] = self.descent.clip()
        else:
            logs, pairs = {}, self._reconstructions(parts, at)
        theirs: dict[str, float] = {}
        if self.adversary and turn.discriminator:
            theirs = self.adversary.learn(pairs, at)
        for name, what in FAULTS.items():
            if not math.isfinite((logs | theirs).get(name, 0.0)):
                self._undo(buffers)
                if self.adversary:
                    self.adversary.discard()
                return Outcome(logs | theirs, fault=f"non-finite {what}")
        if turn.generator:
            logs["learning_rate"] = self.descent.descend(at)
            if self.adversary and self.adversary.freezes(at):
                self.model.discard()
            else:
                self.model.commit(mix(at.seed, CODES, at.step))
            self._average_weights(at)
            self.objective.commit(logs.get("kl", math.nan))
        else:
            self._undo(buffers)
        if self.adversary:
            self.adversary.commit(theirs, at)
            logs |= self.adversary.figures
        return Outcome(logs)

    @torch.no_grad()
    def validate(self, at: Progress) -> Report:
        """Measure the averaged model on the validation clips.

        The latent is the posterior's mean; a draw from it where the score is the ELBO, which is defined on draws.
        """
        meter, variety = self._meter(), Variety()
        means: dict[str, float] = {}
        clips: list[tuple[Tensor, Tensor]] = []
        seen = 0
        for batch in self.data.valid_batches(self.config.batch_size):
            x = batch.x.to(self.device)
            eps = generators(at.seed, VALIDATION, items=len(x), first=seen)
            with autocast(self.device, self.low_precision):
                out = self.product(x, sample=self.objective.is_elbo, generators=eps)
            out = out._replace(x_hat=out.x_hat.float())
            if isinstance(meter, CodesMeter):
                meter.update(out.codes, len(x) * x.shape[-1] / self.product.sample_rate)
            else:
                mu, logvar = out.moments
                meter.update(mu, logvar, out.mask)
            if self.adversary:
                variety.update(x, out.x_hat)
            seen += len(x)
            for name, value in self._figures(out, x, at).items():
                means[name] = means.get(name, 0.0) + (value - means.get(name, 0.0)) * len(x) / seen
            clips += zip(x.cpu(), out.x_hat.cpu(), strict=True)
        alarms = self.alarm.update(at.step, meter)
        if self.adversary and self.adversary.turn(at).played:
            alarms += self.adversary.look(at.step, variety.value)
        score = means["negative_elbo" if self.objective.is_elbo else "mel"]
        to_hear = clips[:: -(-len(clips) // CLIPS_TO_HEAR)]
        return Report(score, means | meter.figures(), to_hear, alarms, meter.statistics())

    def state_dict(self) -> State:
        """Weights, buffers and moments of the optimizers; what the objective, the balancer and the alarms remember."""
        tensors = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        tensors |= {f"optimizer.{name}": t for name, t in self.descent.tensors().items()}
        values = {"objective": self.objective.state_dict(), "alarm": self.alarm.state_dict()}
        if self.adversary:
            tensors |= {f"adversary.{name}": t for name, t in self.adversary.tensors().items()}
            values["adversary"] = self.adversary.state_dict()
        return State(tensors, values)

    def load_state_dict(self, state: State) -> None:
        """Go back to a state; tensors move to this task's device."""
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}, "adversary": {}}
        for name, tensor in state.tensors.items():
            kind, _, rest = name.partition(".")
            parts[kind][rest] = tensor
        load_weights(self.model, parts["model"], "the state of the training")
        self.descent.load(parts["optimizer"])
        self.objective.load_state_dict(state.values["objective"])
        self.alarm.load_state_dict(state.values["alarm"])
        if self.adversary:
            self.adversary.load(parts["adversary"], state.values["adversary"])

    def _adversary(self) -> Adversary | None:
        """The discriminators of the config, if it has any."""
        if self.config.adversarial is None:
            return None
        if (objective := self.model.config.default_objective) in WITHOUT_SOUND:
            raise ConfigError(
                f"{type(self.model).__name__} trains on a {objective}, not on a sound that discriminators could hear; "
                "leave adversarial out"
            )
        return Adversary(
            self.config.adversarial,
            channels=self.model.channels,
            sample_rate=self.model.sample_rate,
            seed=self.config.seed,
            device=self.device,
            low_precision=self.low_precision,
            world=self.world,
        )

    def _accumulate_gradients(
        self, parts: Sequence[Part], at: Progress
    ) -> tuple[dict[str, float], list[Pair]]:
        """Leave the mean gradient of all micro-batches in the weights; return the means of the terms, and the sounds."""
        sums: dict[str, float] = {}
        pairs: list[Pair] = []
        for number, (items, batch) in enumerate(parts, start=1):
            eps = self._chance(items, at)
            with synchronised(self.forward, number == len(parts)):
                with autocast(self.device, self.low_precision):
                    weighed, x_hat = self.forward(batch.x, eps, at)  # x [B, C, T]
                self._backward(weighed, x_hat, len(parts))
            for name, value in _logs(weighed).items():
                sums[name] = sums.get(name, 0.0) + value / len(parts)
            pairs.append((batch.x, x_hat.detach()))
        return dict(zip(sums, self.world.mean(list(sums.values())), strict=True)), pairs

    def _backward(self, weighed: Weighed, x_hat: Tensor, parts: int) -> None:
        """The gradient of the total, or of its balanced terms through x_hat and of the others."""
        if self.adversary is None or self.adversary.balancer is None:
            (weighed.total / parts).backward()
            return
        balanced = {name: weighed.raw[name] for name in weighed.weights if name in AT_X_HAT}
        gradient = self.adversary.balancer.gradient(balanced, weighed.weights, x_hat)
        rest = [w * weighed.raw[n] for n, w in weighed.weights.items() if n not in AT_X_HAT]
        rest = [term for term in rest if term.requires_grad]
        torch.autograd.backward([x_hat, *rest], [gradient, *(None for _ in rest)])

    @torch.no_grad()
    def _reconstructions(self, parts: Sequence[Part], at: Progress) -> list[Pair]:
        """(x, x_hat) of each micro-batch, for a step in which only the discriminators learn."""
        pairs = []
        for items, batch in parts:
            eps = self._chance(items, at)
            with autocast(self.device, self.low_precision):
                out = self.model(batch.x, sample=True, generators=eps)
            pairs.append((batch.x, out.x_hat.float()))
        return pairs

    def _chance(self, items: range, at: Progress) -> list[torch.Generator]:
        """Seed torch's own chance for some items of a step; return the generators of their noise."""
        torch.manual_seed(mix(at.seed, CHANCE, at.step, items.start))
        return generators(at.seed, NOISE, at.step, items=len(items), first=items.start)

    def _undo(self, buffers: Sequence[Tensor]) -> None:
        """Leave the model as the step found it."""
        for buffer, before in zip(self._buffers(), buffers, strict=True):
            buffer.copy_(before)
        self.model.discard()
        self.descent.forget()

    @torch.no_grad()
    def _average_weights(self, at: Progress) -> None:
        """Move the product's weights towards the model's; copy its buffers, and codes that were put elsewhere."""
        decay = min(self.config.optimizer.ema_decay, (1 + at.step) / (10 + at.step))
        averaged: list[Tensor] = list(self.product.parameters())
        weights: list[Tensor] = list(self.model.parameters())
        torch._foreach_lerp_(averaged, weights, 1 - decay)
        for ours, theirs in zip(self.product.buffers(), self.model.buffers(), strict=True):
            ours.copy_(theirs)
        for averaged_book, book in zip(
            _codebooks(self.product), _codebooks(self.model), strict=True
        ):
            if book.placed is not None:  # no step that an average could follow
                averaged_book.vectors[book.placed] = book.vectors[book.placed]

    def _buffers(self) -> list[Tensor]:
        """What a forward pass may change besides gradients: the buffers that a checkpoint holds."""
        held = self.model.state_dict(keep_vars=True)
        return [t for t in held.values() if not isinstance(t, nn.Parameter)]

    def _meter(self) -> LatentMeter | CodesMeter:
        """A new meter for this model's kind of latent."""
        if sizes := self.product.codebook_sizes:
            return CodesMeter(sizes, self.product.side_levels)
        return LatentMeter(self.product.latent_dim, self.product.frame_rate)

    def _figures(self, out: Reconstruction, x: Tensor, at: Progress) -> dict[str, float]:
        """Distances to the original, and the objective's total, of one batch."""
        rate = self.product.sample_rate
        weighed = self.objective(out, x, at, every_window=True)
        figures = {
            "mel": float(mel_distance(out.x_hat, x, rate)),
            "stft": float(stft_distance(out.x_hat, x, rate)),
            "si_sdr": float(si_sdr(out.x_hat, x, rate)),
            "total": float(weighed.total),
        }
        if self.objective.is_elbo:  # free of beta's schedule, so that two steps compare
            density = weighed.raw["gaussian"] if "gaussian" in weighed.raw else weighed.raw["nll"]
            # codes have a constant in its place: log V of each, under a uniform prior
            figures["negative_elbo"] = float(density + weighed.raw.get("kl", 0.0))
        return figures


def _logs(weighed: Weighed) -> dict[str, float]:
    """The loss, every raw term and every weighted one, as numbers."""
    raw = {name: float(term.detach()) for name, term in weighed.raw.items()}
    weighted = {f"weighted.{name}": value for name, value in weighed.weighted.items()}
    return {"loss": float(weighed.total.detach()), **raw, "beta": weighed.beta, **weighted}


def _codebooks(model: nn.Module) -> list[Codebook]:
    return [module for module in model.modules() if isinstance(module, Codebook)]
