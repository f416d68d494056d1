"""One training step of a variational autoencoder, from the sounds to the averaged weights.

    x -> model -> (x_hat, mu, logvar) -> objective -> gradient -> clip -> AdamW -> average of the weights

The average follows decay = min(ema_decay, (1 + step) / (10 + step)), so that in a short run it is not still the
weights of the start (as in TensorFlow's ExponentialMovingAverage).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from audiovae.audio.compare import mel_distance, si_sdr, stft_distance
from audiovae.checkpoint import load_weights
from audiovae.data import Dataset
from audiovae.models import Autoencoder, Reconstruction
from audiovae.nn.noise import generators, mix
from audiovae.training.checkpoints import State
from audiovae.training.config import OptimizerConfig, TrainConfig
from audiovae.training.diagnostics import CodesMeter, CollapseAlarm, LatentMeter
from audiovae.training.distributed import ALONE, World
from audiovae.training.feed import Part
from audiovae.training.loop import Outcome
from audiovae.training.objective import Objective, Weighed
from audiovae.training.schedules import Progress, warmup_cosine
from audiovae.training.tracking import Report

# streams of random numbers: the posterior's draw, anything else, validation, codes that are revived
NOISE, CHANCE, VALIDATION, CODES = 1, 2, 3, 4
CLIPS_TO_HEAR = 4


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
        self.product = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.objective = Objective(
            config.objective, model.sample_rate, model.config.default_objective
        ).to(device)
        self.alarm = CollapseAlarm()
        self.low_precision = uses_bf16(config.precision, device)
        trained = _Trained(self.model, self.objective)
        self.forward = world.wrap(trained, device)
        self.optimizer = _adamw(trained, config.optimizer)

    def step(self, parts: Sequence[Part], at: Progress) -> Outcome:
        """Make one update from some micro-batches.  A loss or gradient that is not finite changes nothing."""
        buffers = [buffer.clone() for buffer in self._buffers()]
        logs = self._accumulate_gradients(parts, at)
        norm = self._clip_gradients()
        rate = self._set_learning_rate(at)
        logs |= {"gradient_norm": norm, "learning_rate": rate}
        if not (math.isfinite(logs["loss"]) and math.isfinite(norm)):
            for buffer, before in zip(self._buffers(), buffers, strict=True):
                buffer.copy_(before)
            self.model.discard()
            self.optimizer.zero_grad()
            what = "gradient" if math.isfinite(logs["loss"]) else "loss"
            return Outcome(logs, fault=f"non-finite {what}")
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.model.commit(mix(at.seed, CODES, at.step))
        self._average_weights(at)
        self.objective.commit(logs.get("kl", math.nan))
        return Outcome(logs)

    @torch.no_grad()
    def validate(self, at: Progress) -> Report:
        """Measure the averaged model on the validation clips.

        The latent is the posterior's mean; a draw from it where the score is the ELBO, which is defined on draws.
        """
        meter = self._meter()
        means: dict[str, float] = {}
        clips: list[tuple[Tensor, Tensor]] = []
        seen = 0
        for x in self._validation_clips():
            eps = generators(at.seed, VALIDATION, items=len(x), first=seen)
            with self._autocast():
                out = self.product(x, sample=self.objective.is_elbo, generators=eps)
            out = out._replace(x_hat=out.x_hat.float())
            if isinstance(meter, CodesMeter):
                meter.update(out.codes, len(x) * x.shape[-1] / self.product.sample_rate)
            else:
                meter.update(*out.moments)
            seen += len(x)
            for name, value in self._figures(out, x, at).items():
                means[name] = means.get(name, 0.0) + (value - means.get(name, 0.0)) * len(x) / seen
            clips += list(zip(x.cpu(), out.x_hat.cpu(), strict=True))[: CLIPS_TO_HEAR - len(clips)]
        alarms = self.alarm.update(at.step, meter)
        score = means["negative_elbo" if self.objective.is_elbo else "mel"]
        return Report(score, means | meter.figures(), clips, alarms, meter.statistics())

    def state_dict(self) -> State:
        """Weights, buffers and moments of the optimizer; what the objective and the alarm remember."""
        tensors = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        for number, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": t for name, t in moments.items()}
        values = {"objective": self.objective.state_dict(), "alarm": self.alarm.state_dict()}
        return State(tensors, values)

    def load_state_dict(self, state: State) -> None:
        """Go back to a state; tensors move to this task's device."""
        weights: dict[str, Tensor] = {}
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in state.tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "model":
                weights[rest] = tensor
            else:
                number, _, moment = rest.partition(".")
                moments.setdefault(int(number), {})[moment] = tensor.clone()
        load_weights(self.model, weights, "the state of the training")
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.objective.load_state_dict(state.values["objective"])
        self.alarm.load_state_dict(state.values["alarm"])

    def _accumulate_gradients(self, parts: Sequence[Part], at: Progress) -> dict[str, float]:
        """Leave the mean gradient of all micro-batches in the weights; return the means of the terms."""
        sums: dict[str, float] = {}
        for number, (items, batch) in enumerate(parts, start=1):
            torch.manual_seed(mix(at.seed, CHANCE, at.step, items.start))
            eps = generators(at.seed, NOISE, at.step, items=len(items), first=items.start)
            with self._synchronised(number == len(parts)):
                with self._autocast():
                    weighed: Weighed = self.forward(batch.x, eps, at)  # x [B, C, T]
                (weighed.total / len(parts)).backward()
            for name, value in _logs(weighed).items():
                sums[name] = sums.get(name, 0.0) + value / len(parts)
        return dict(zip(sums, self.world.mean(list(sums.values())), strict=True))

    def _clip_gradients(self) -> float:
        """Scale the gradient down to the largest norm allowed; return the norm it had."""
        weights = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = get_total_norm([p.grad for p in weights if p.grad is not None])
        clip_grads_with_norm_(weights, self.config.optimizer.clip, norm)
        return float(norm)

    def _set_learning_rate(self, at: Progress) -> float:
        settings = self.config.optimizer
        rate: float = settings.learning_rate * warmup_cosine(at, settings.warmup, settings.final)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    @torch.no_grad()
    def _average_weights(self, at: Progress) -> None:
        """Move the product's weights towards the model's; copy its buffers."""
        decay = min(self.config.optimizer.ema_decay, (1 + at.step) / (10 + at.step))
        averaged: list[Tensor] = list(self.product.parameters())
        weights: list[Tensor] = list(self.model.parameters())
        torch._foreach_lerp_(averaged, weights, 1 - decay)
        for ours, theirs in zip(self.product.buffers(), self.model.buffers(), strict=True):
            ours.copy_(theirs)

    def _buffers(self) -> list[Tensor]:
        """What a forward pass may change besides gradients: the buffers that a checkpoint holds."""
        held = self.model.state_dict(keep_vars=True)
        return [t for t in held.values() if not isinstance(t, nn.Parameter)]

    def _validation_clips(self) -> Iterator[Tensor]:
        """x [B, C, T] of the first `validation_clips` clips, the same ones every time."""
        left, size = self.config.validation_clips, self.config.batch_size
        for batch in self.data.valid_batches(size):
            if left <= 0:
                return
            yield batch.x[:left].to(self.device)
            left -= len(batch.x)

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

    def _autocast(self) -> AbstractContextManager[object]:
        return (
            torch.autocast(self.device.type, torch.bfloat16)
            if self.low_precision
            else nullcontext()
        )

    def _synchronised(self, last: bool) -> AbstractContextManager[object]:
        """Join the processes' gradients in the last micro-batch only."""
        if isinstance(self.forward, DistributedDataParallel) and not last:
            return self.forward.no_sync()
        return nullcontext()


class _Trained(nn.Module):
    """Model and objective as one module, so that one wrapper joins the gradients of both."""

    def __init__(self, model: Autoencoder, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.objective = objective

    def forward(self, x: Tensor, eps: Sequence[torch.Generator], at: Progress) -> Weighed:
        """x [B, C, T] -> the weighed terms."""
        out = self.model(x, sample=True, generators=eps)
        weighed: Weighed = self.objective(out._replace(x_hat=out.x_hat.float()), x, at)
        return weighed


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Whether to run the model under bf16 autocast: as told, or where the processor multiplies it natively.

    AVX-512 BF16 multiplies matrices several times faster than fp32; without it bf16 is emulated and slower.
    """
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def _adamw(trained: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW that decays matrices and kernels, not biases and scales."""
    weights = [p for p in trained.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in weights if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in weights if p.ndim <= 1], "weight_decay": 0.0},
    ]
    # fused: one pass over memory, where torch's default on a CPU makes many
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)


def _logs(weighed: Weighed) -> dict[str, float]:
    """The loss, every raw term and every weighted one, as numbers."""
    raw = {name: float(term.detach()) for name, term in weighed.raw.items()}
    weighted = {f"weighted.{name}": value for name, value in weighed.weighted.items()}
    return {"loss": float(weighed.total.detach()), **raw, "beta": weighed.beta, **weighted}
