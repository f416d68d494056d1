"""The distribution of the next sample of a sound, given the numbers that a net says of it.

MuLaw            256 levels on the mu-law curve s = sign(x) log(1 + 255 |x|) / log 256, level = round(128 s)   (ITU G.711)
LogisticMixture  sum_k pi_k Logistic(mean_k, scale_k) over the 65,536 values of 16-bit sound
                                                       (Salimans et al. 2017, eq. 2; van den Oord et al. 2018, sec. 2)

Both are probabilities of finitely many values, so a log-likelihood is at most 0; silence is one of the values. Likelihoods
of the two do not compare: one tells 256 values apart, the other 65,536.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn import functional

MU = 255  # of the curve: 8 bits in telephony
LEVELS = 256
PCM = 32_768  # steps of 16-bit sound from 0 to full scale
LOG_SCALE_FLOOR = -9.0  # 4 steps of 16-bit sound: finer, a net only learns to be overconfident
UNIFORMS = 2  # uniform random numbers that a draw may use


def compress(x: Tensor) -> Tensor:
    """Bend samples to mu-law's curve.  x in [-1, 1], any shape -> [-1, 1]; beyond full scale is clipped.

    >>> compress(torch.tensor([0.0, 1.0, -1.0])).tolist()
    [0.0, 1.0, -1.0]
    """
    x = x.clamp(-1, 1)
    return x.sign() * torch.log1p(MU * x.abs()) / math.log1p(MU)


def expand(s: Tensor) -> Tensor:
    """Undo `compress`.  s in [-1, 1], any shape."""
    return s.sign() * torch.expm1(s.abs() * math.log1p(MU)) / MU


class NextSample(ABC):
    """A family of distributions over the values of a sample, told apart by P numbers.

    Item by item; p [B, P, T] are a net's plain outputs, x [B, T] samples.
    """

    n_parameters: int  # P

    @abstractmethod
    def quantise(self, x: Tensor) -> Tensor:
        """The nearest values that have a probability.  Any shape."""

    @abstractmethod
    def log_prob(self, p: Tensor, x: Tensor) -> Tensor:
        """log P(x) in nats.  p [B, P, T], x [B, T] -> [B, T]; x is quantised first."""

    @abstractmethod
    def mean(self, p: Tensor) -> Tensor:
        """The expected sample.  p [B, P, T] -> [B, T]."""

    @abstractmethod
    def draw(self, p: Tensor, uniforms: Tensor, temperature: float) -> Tensor:
        """Draw samples.  p [B, P], uniforms [B, 2] in [0, 1) float64 -> x [B].

        Below 1 the temperature makes the likely likelier; at 0 it is the most probable value (of a mixture: the mean
        of the heaviest component) whatever the uniforms are.
        """


class MuLaw(NextSample):
    """A softmax over 256 levels."""

    n_parameters = LEVELS

    def quantise(self, x: Tensor) -> Tensor:
        """The nearest of the levels' values."""
        return self._value(self._level(x))

    def log_prob(self, p: Tensor, x: Tensor) -> Tensor:
        """p [B, 256, T], x [B, T] -> [B, T]."""
        return -functional.cross_entropy(p.float(), self._level(x), reduction="none")

    def mean(self, p: Tensor) -> Tensor:
        """p [B, 256, T] -> [B, T]."""
        return (p.float().softmax(1) * self.values(p.device)[:, None]).sum(1)

    def draw(self, p: Tensor, uniforms: Tensor, temperature: float) -> Tensor:
        """Invert the cumulative distribution at the first uniform number."""
        return self._value(_choose(p, uniforms[:, 0], temperature))

    def values(self, device: torch.device | None = None) -> Tensor:
        """The sample that each level stands for, [256]."""
        return self._value(torch.arange(LEVELS, device=device))

    def _level(self, x: Tensor) -> Tensor:
        """x in [-1, 1] -> 0 to 255; 128 is silence."""
        half = LEVELS // 2
        return (half * compress(x.float())).round().long().clamp(-half, half - 1) + half

    def _value(self, level: Tensor) -> Tensor:
        half = LEVELS // 2
        return expand((level - half).float() / half)


class LogisticMixture(NextSample):
    """K logistics, each by a logit of its weight, a mean and the log of its scale."""

    def __init__(self, n_mixtures: int) -> None:
        self.n_mixtures = n_mixtures  # K
        self.n_parameters = 3 * n_mixtures

    def quantise(self, x: Tensor) -> Tensor:
        """The nearest value of 16-bit sound."""
        return (x.float() * PCM).round().clamp(-PCM, PCM - 1) / PCM

    def log_prob(self, p: Tensor, x: Tensor) -> Tensor:
        """p [B, 3 K, T], x [B, T] -> [B, T].

        With F the logistic's distribution function, s its scale, and a < b the ends of x's step in units of s:
        log(F(b) - F(a)) = log(1 - e^(a - b)) - softplus(-b) - softplus(a), which loses no digits.
        """
        weights, means, log_scales = self._parts(p.float())  # [B, K, T] each
        x = self.quantise(x)[:, None]
        scales = log_scales.exp()
        above = (x + 0.5 / PCM - means) / scales
        below = (x - 0.5 / PCM - means) / scales
        to_the_end = -functional.softplus(below)  # the last value takes what lies above it
        from_the_start = -functional.softplus(-above)
        inside = torch.log(-torch.expm1(-1 / (PCM * scales))) + to_the_end + from_the_start
        log_prob = torch.where(x == -1, from_the_start, inside)
        log_prob = torch.where(x == (PCM - 1) / PCM, to_the_end, log_prob)
        return torch.logsumexp(weights.log_softmax(1) + log_prob, 1)

    def mean(self, p: Tensor) -> Tensor:
        """p [B, 3 K, T] -> [B, T]; of the mixture as it is before clipping and rounding, held in [-1, 1]."""
        weights, means, _ = self._parts(p.float())
        return (weights.softmax(1) * means).sum(1).clamp(-1, 1)

    def draw(self, p: Tensor, uniforms: Tensor, temperature: float) -> Tensor:
        """Choose a component by the first uniform number, invert its distribution at the second."""
        weights, means, log_scales = self._parts(p.double())  # [B, K] each
        chosen = _choose(weights, uniforms[:, 0], temperature)[:, None]
        noise = torch.logit(uniforms[:, 1:], eps=1e-12)
        x = means.gather(1, chosen) + temperature * log_scales.gather(1, chosen).exp() * noise
        return self.quantise(x[:, 0])

    def _parts(self, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, means, log scales: softly kept above their floor, a hard one would kill the gradient."""
        weights, means, log_scales = p.chunk(3, dim=1)
        return weights, means, functional.softplus(log_scales - LOG_SCALE_FLOOR) + LOG_SCALE_FLOOR


def _choose(logits: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    """Draw from a softmax, or take its largest.  logits [B, N], uniform [B] float64 -> [B] int64."""
    if temperature == 0:
        return logits.argmax(1)
    cumulative = (logits.double() / temperature).softmax(1).cumsum(1)
    return (cumulative < uniform[:, None]).sum(1).clamp(max=logits.shape[1] - 1)
