"""The objective: every term, every weight, and the one place where the two meet.

    total = sum over terms of  weight[term] * term,    the KL's weight being  weight["kl"] * beta(step) * control

The tables of weights are in training/weights.py.

With spectral terms beta is a weight and nothing more; with the density it is the beta of a beta-VAE (Higgins 2017).
A random few of the windows are used in a step, each in one view, chosen from (seed, step) alone and scaled to the same
expectation.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from audiovae.audio.compare import MEL_BANDS, mel_distance_of
from audiovae.audio.spectra import Spectra, View
from audiovae.config import Config
from audiovae.errors import ConfigError, did_you_mean
from audiovae.losses.divergence import kl_rate
from audiovae.losses.published import a_weighted_stft, audiocraft_mel, rave_distance
from audiovae.losses.spectral import (
    COMPLEX_WINDOWS,
    WINDOWS,
    compressed_complex,
    multi_resolution_stft,
)
from audiovae.losses.waveform import LOG_SIGMA_FLOOR, gaussian_nll, l1
from audiovae.models.base import Reconstruction
from audiovae.nn.noise import mix
from audiovae.training.schedules import Progress, Schedule, value_at
from audiovae.training.weights import (
    ADVERSARIAL_WEIGHTS,
    NAMED_SPECTRAL,
    NAMED_WEIGHTS,
    OWN_WEIGHTS,
    Named,
)

_CONTROL_RANGE = math.log(1e6)  # the controller moves beta by at most a million either way


class ObjectiveConfig(Config):
    """What a training minimises."""

    name: Named | None = None  # None: the family's
    weights: dict[str, float] = Field(
        default_factory=dict
    )  # changes to the named table; 0 leaves a term out
    beta: Schedule = Field(default_factory=Schedule)
    spectral: Schedule | None = None  # of the stft, mel and complex weights; None: as named below
    free_bits: float = Field(
        0.0, ge=0
    )  # bits per dimension and latent frame that cost nothing to use
    target_rate: float | None = Field(None, gt=0)  # nats per second to hold by moving beta
    control_gain: float = Field(0.01, gt=0, le=1)  # at most this much of log beta a step
    windows_per_step: int = Field(2, ge=0, le=7)  # of the STFT and mel terms; 0 is all of them
    log_sigma: float = -3.0  # of the density: fixed here, or the start of a learned one
    learn_sigma: bool = False
    log_sigma_floor: float = LOG_SIGMA_FLOOR


class Weighed(NamedTuple):
    """An objective's value and what it is made of."""

    total: Tensor  # what to descend
    raw: dict[
        str, Tensor
    ]  # every term as its loss returned it; "kl" is the true one, without free bits
    weighted: dict[str, float]  # what each adds to the total
    weights: dict[str, float]  # by which it does, schedules and controller in it
    beta: float  # schedule times controller


class Scene(NamedTuple):
    """What a term sees of a step."""

    out: Reconstruction
    x: Tensor  # [B, C, T]
    spectra: Spectra
    windows: Sequence[int]  # of this step, for STFT and mel
    views: Sequence[View]  # one for each window of the STFT term; none is all of them
    complex_windows: Sequence[int]
    sample_rate: int
    seconds: float  # that the clip lasts
    log_sigma: Tensor
    config: ObjectiveConfig


class Objective(nn.Module):
    """out, x, at -> Weighed.  Remembers two numbers: a learned log sigma and the controller's factor on beta.

    With `learn_sigma` there is one parameter: give `objective.parameters()` to the optimizer.
    """

    log_control: Tensor  # [], log of the controller's factor on beta
    log_sigma: Tensor  # []

    def __init__(
        self, config: ObjectiveConfig, sample_rate: int, default: str = "spectral"
    ) -> None:
        """`default` is the named table where the config names none."""
        super().__init__()
        name = config.name or default
        self.config, self.sample_rate = config, sample_rate
        self.steps_per_second = float(sample_rate)  # of x; of codes it is their frame rate
        self.weights = NAMED_WEIGHTS[name] | config.weights
        self.spectral = config.spectral or NAMED_SPECTRAL.get(name) or Schedule()
        for name, weight in self.weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise ConfigError(
                    f"objective.weights.{name} must be a number from 0 on, got {weight}"
                )
        if not any(weight > 0 for weight in self.weights.values()):
            raise ConfigError(
                "no term of the objective has a weight; set one, such as objective.weights.mel 1"
            )
        self.register_buffer("log_control", torch.zeros(()))
        log_sigma = torch.tensor(float(config.log_sigma))
        if config.learn_sigma:
            self.log_sigma = nn.Parameter(log_sigma)
        else:
            self.register_buffer("log_sigma", log_sigma)

    @property
    def is_elbo(self) -> bool:
        """Whether the total is a likelihood's: then it, and not a distance, says which model is best."""
        return any(self.weights.get(name, 0.0) > 0 for name in ("gaussian", "nll"))

    def forward(
        self,
        out: Reconstruction,
        x: Tensor,
        at: Progress,
        *,
        every_window: bool = False,
        adversarial: float = 1.0,
    ) -> Weighed:
        """Weigh a reconstruction of x [B, C, T].  With `every_window` (validation) nothing is random.

        `adversarial` is the factor on the weights of the discriminators' terms, which come in `out.terms`.

        Raises ConfigError if a weight names a term that neither audiovae nor this model has, or if the model gives a
        term that has no weight.
        """
        few = 0 if every_window else self.config.windows_per_step
        chance = random.Random(mix(at.seed, at.step))
        spectra = Spectra(out.x_hat, x)
        scene = Scene(
            out=out,
            x=x,
            spectra=spectra,
            windows=_choose(WINDOWS, few, chance),
            views=[chance.choice(spectra.views) for _ in range(few)],
            complex_windows=_choose(COMPLEX_WINDOWS, min(few, 1), chance),
            sample_rate=self.sample_rate,
            seconds=x.shape[-1] / self.steps_per_second,
            log_sigma=self.log_sigma,
            config=self.config,
        )
        with torch.autocast(x.device.type, enabled=False):  # log spectra need all bits of a float32
            raw = self._raw(scene)
            costs = raw | ({"kl": _kl(scene, free=True)} if self._free(out) else {})
            beta = value_at(self.config.beta, at) * float(self.log_control.exp())
            rise = value_at(self.spectral, at)
            factors = {"kl": beta, "stft": rise, "mel": rise, "complex": rise}
            factors |= dict.fromkeys(ADVERSARIAL_WEIGHTS, adversarial)
            weights = {
                name: weight * factors.get(name, 1.0)
                for name, weight in self._weights_of(out).items()
                if weight > 0
            }
            weighted = {name: weight * costs[name] for name, weight in weights.items()}
            total = torch.stack([x.new_zeros(()), *weighted.values()]).sum()
        values = {name: float(term.detach()) for name, term in weighted.items()}
        return Weighed(total, raw, values, weights, beta)

    @torch.no_grad()
    def commit(self, kl_nats_per_second: float) -> None:
        """Let the controller see the rate of a step that proved finite; without a target_rate nothing happens.

        Integral control of log beta: a rate e times the target raises it by control_gain, and no error counts for more.
        """
        if self.config.target_rate is None or not math.isfinite(kl_nats_per_second):
            return
        error = math.log(max(kl_nats_per_second, 1e-9) / self.config.target_rate)
        self.log_control += self.config.control_gain * max(-1.0, min(1.0, error))
        self.log_control.clamp_(-_CONTROL_RANGE, _CONTROL_RANGE)

    def state_dict(self) -> dict[str, float]:  # type: ignore[override]
        """The two numbers, as JSON can hold them without loss."""
        return {"log_control": float(self.log_control), "log_sigma": float(self.log_sigma.detach())}

    def load_state_dict(self, state: Mapping[str, float]) -> None:  # type: ignore[override]
        """Go back to what `state_dict` returned."""
        with torch.no_grad():
            self.log_control.fill_(state["log_control"])
            self.log_sigma.fill_(state["log_sigma"])

    def _raw(self, scene: Scene) -> dict[str, Tensor]:
        """Every term with a weight above 0, and the KL in any case: the controller and the log want it."""
        own = {name: term for name, term in scene.out.terms.items() if name != "kl"}
        weights = self._weights_of(scene.out)
        known = {*TERMS, *own}
        if unknown := sorted(set(weights) - known):
            raise ConfigError(
                f"objective.weights.{unknown[0]} weighs a term that does not exist{did_you_mean(unknown[0], known)}"
            )
        if missing := sorted(set(own) - set(weights)):
            raise ConfigError(
                f"the model gives the term '{missing[0]}', which has no weight; set objective.weights.{missing[0]} "
                "(0 leaves it out)"
            )
        used = [name for name, weight in weights.items() if weight > 0]
        if "kl" not in used and (scene.out.moments is not None or "kl" in scene.out.terms):
            used.append("kl")
        return {name: own[name] if name in own else TERMS[name](scene) for name in used}

    def _weights_of(self, out: Reconstruction) -> dict[str, float]:
        """The table for what this model gives: its own terms with their defaults, no KL where it has none."""
        given = OWN_WEIGHTS | ADVERSARIAL_WEIGHTS
        own = {name: weight for name, weight in given.items() if name in out.terms}
        absent = {"kl"} if out.moments is None and "kl" not in out.terms else set()
        absent -= set(self.config.weights)
        absent |= ADVERSARIAL_WEIGHTS.keys() - out.terms.keys()  # they have not begun
        return {n: weight for n, weight in (own | self.weights).items() if n not in absent}

    def _free(self, out: Reconstruction) -> bool:
        used = self.config.free_bits > 0 and self.weights.get("kl", 0.0) > 0
        if used and out.moments is None:
            raise ConfigError(
                "free_bits need a model with a Gaussian bottleneck; set free_bits to 0"
            )
        return used


def _choose(windows: Sequence[int], count: int, chance: random.Random) -> Sequence[int]:
    return chance.sample(windows, count) if 0 < count < len(windows) else windows


def _stft(scene: Scene) -> Tensor:
    share = len(scene.windows) / len(WINDOWS)
    return multi_resolution_stft(scene.spectra, scene.windows, scene.views) / share


def _mel(scene: Scene) -> Tensor:
    share = len(scene.windows) / len(MEL_BANDS)
    return mel_distance_of(scene.spectra, scene.sample_rate, scene.windows) / share


def _gaussian(scene: Scene) -> Tensor:
    return gaussian_nll(
        scene.out.x_hat,
        scene.x,
        scene.log_sigma,
        scene.sample_rate,
        log_sigma_floor=scene.config.log_sigma_floor,
    )


def _kl(scene: Scene, *, free: bool = False) -> Tensor:
    """The clip's KL in nats per second: from the moments, else the model's own term."""
    if scene.out.moments is None:
        if "kl" not in scene.out.terms:
            raise ConfigError("the model has no KL; set objective.weights.kl to 0")
        return scene.out.terms["kl"]
    nats = scene.config.free_bits * math.log(2) if free else 0.0
    return kl_rate(*scene.out.moments, scene.seconds, free=nats, mask=scene.out.mask)


TERMS: Mapping[str, Callable[[Scene], Tensor]] = {
    "stft": _stft,
    "mel": _mel,
    "l1": lambda scene: l1(scene.out.x_hat, scene.x),
    "complex": lambda scene: compressed_complex(scene.spectra, scene.complex_windows),
    "a_weighted_stft": lambda scene: a_weighted_stft(scene.out.x_hat, scene.x, scene.sample_rate),
    "audiocraft_mel": lambda scene: audiocraft_mel(scene.out.x_hat, scene.x, scene.sample_rate),
    "rave": lambda scene: rave_distance(scene.out.x_hat, scene.x),
    "gaussian": _gaussian,
    "kl": _kl,
}

# Those that depend on the model through x_hat alone, so that a balancer can weigh their gradients there
AT_X_HAT = (TERMS.keys() - {"kl"}) | ADVERSARIAL_WEIGHTS.keys()
