"""What can be done with latents alone: blend them, describe them, draw them.

The aggregate posterior q(z) = mean over the data of q(z | x) is described by its mean, its covariance over dimensions
and its covariances over time,

    C[l] = (1 / n) sum over frames f of (z[f + l] - m) (z[f] - m)^T,    l = 0 .. max_lag

divided by the number n of all frames, not of pairs: shorter by a few per cent, but the process that they describe is
then always stable.  As a vector autoregression (Yule-Walker) it is the most random stationary process with these C:

    z[f] - m = sum_k A[k] (z[f - k] - m) + e[f],     sum_k A[k] C[j - k] = C[j] for j = 1 .. p
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from audiovae.errors import LatentError
from audiovae.nn.densities import kl_standard_normal
from audiovae.nn.noise import standard_normal

MAX_LAG = 4  # frames: 0.1 s at 43 Hz; further correlation follows from these by the recursion


def interpolate(
    a: Tensor, b: Tensor, share: float, *, path: Literal["linear", "spherical"] = "linear"
) -> Tensor:
    """The latent that lies `share` of the way from a to b; share 0 is a, share 1 is b.

    a [B, D, Fa], b [B, D, Fb] -> [B, D, F] with F between the two lengths: both are stretched to it in time.
    The spherical path turns each frame from a's direction to b's, so that its norm does not sag in the middle.
    Raises LatentError if batch or dimensions differ.
    """
    if a.ndim != 3 or b.ndim != 3 or a.shape[:2] != b.shape[:2]:
        raise LatentError(
            "latents to interpolate are [batch, dims, frames] with equal batch and dims, "
            f"got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    frames = round((1 - share) * a.shape[-1] + share * b.shape[-1])
    a, b = stretch(a, frames), stretch(b, frames)
    return torch.lerp(a, b, share) if path == "linear" else _turn(a, b, share)


def stretch(z: Tensor, frames: int) -> Tensor:
    """Resample a latent in time, linearly, the ends staying the ends.  z [B, D, F] -> [B, D, frames]."""
    if z.shape[-1] == frames:
        return z
    return nn.functional.interpolate(z, frames, mode="linear", align_corners=True)


def _turn(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Spherical interpolation of each frame (Shoemake 1985); linear where no plane lies between the two."""
    directions = [nn.functional.normalize(z, dim=1) for z in (a, b)]
    cosine = (directions[0] * directions[1]).sum(1, keepdim=True)  # [B, 1, F]
    parallel = cosine.abs() > 1 - 1e-6
    nothing = (a == 0).all(1, keepdim=True) | (b == 0).all(1, keepdim=True)
    flat = parallel | nothing
    angle = torch.acos(torch.where(flat, 0.0, cosine))
    turned = torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b
    return torch.where(flat, torch.lerp(a, b, share), turned / torch.sin(angle))


class LatentStatistics(NamedTuple):
    """The aggregate posterior of a data set, as far as second moments tell it.  All float32 on the CPU."""

    mean: Tensor  # [D]
    covariances: Tensor  # [L + 1, D, D], C[l] above of z; C[0] holds the posterior's own variance
    mean_variance: Tensor  # [D], variance of the posterior mean: tells active units
    kl: Tensor  # [D], nats per frame
    frames: Tensor  # [], how many were seen, int64

    def to_tensors(self) -> dict[str, Tensor]:
        """As named tensors, ready for a safetensors file."""
        return {name: tensor.contiguous() for name, tensor in self._asdict().items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Back from `to_tensors`.  Raises LatentError that names what is missing."""
        if missing := [name for name in cls._fields if name not in tensors]:
            raise LatentError(
                f"latent statistics lack {', '.join(missing)}; train or export the model again"
            )
        return cls(**{name: tensors[name] for name in cls._fields})


class LatentFit:
    """Fits LatentStatistics to batches of moments, in float64; the order of the batches does not matter."""

    def __init__(self, latent_dim: int, max_lag: int = MAX_LAG) -> None:
        self.max_lag = max_lag
        self.clips = self.frames = 0
        lags = max_lag + 1
        self._products = torch.zeros(lags, latent_dim, latent_dim, dtype=torch.float64)
        self._late = torch.zeros(lags, latent_dim, dtype=torch.float64)  # sum of mu[l:]
        self._early = torch.zeros(lags, latent_dim, dtype=torch.float64)  # sum of mu[:F - l]
        self._pairs = torch.zeros(lags, dtype=torch.float64)
        self._variance = torch.zeros(latent_dim, dtype=torch.float64)
        self._kl = torch.zeros(latent_dim, dtype=torch.float64)

    @torch.no_grad()
    def update(self, mu: Tensor, logvar: Tensor, mask: Tensor | None = None) -> None:
        """Count a batch in.  mu, logvar [B, D, F]; mask [B, F] is False in the last frames, those that an item lacks."""
        if mu.shape != logvar.shape or mu.ndim != 3 or mu.shape[1] != len(self._kl):
            raise LatentError(
                f"moments are two of [batch, {len(self._kl)}, frames], got {tuple(mu.shape)} and {tuple(logvar.shape)}"
            )
        if mask is not None:
            for item, frames in enumerate(mask.sum(1).tolist()):
                self.update(mu[item : item + 1, :, :frames], logvar[item : item + 1, :, :frames])
            return
        mu, logvar = mu.cpu().double(), logvar.cpu().double()
        count = mu.shape[-1]
        for lag in range(min(self.max_lag + 1, count)):
            late, early = mu[..., lag:], mu[..., : count - lag]
            self._products[lag] += (late @ early.mT).sum(0)
            self._late[lag] += late.sum((0, 2))
            self._early[lag] += early.sum((0, 2))
            self._pairs[lag] += late.shape[0] * late.shape[2]
        self._variance += logvar.exp().sum((0, 2))
        self._kl += kl_standard_normal(mu, logvar).sum((0, 2))
        self.clips += mu.shape[0]
        self.frames += mu.shape[0] * count

    def statistics(self) -> LatentStatistics:
        """What the batches so far amount to.  Raises LatentError if there was none."""
        if self.frames == 0:
            raise LatentError("no latent was seen; statistics need at least one frame")
        mean = self._late[0] / self.frames
        covariances = (
            self._products
            - self._late[:, :, None] * mean
            - mean[:, None] * self._early[:, None, :]
            + self._pairs[:, None, None] * torch.outer(mean, mean)
        ) / self.frames
        mean_variance = covariances[0].diagonal().clone()
        covariances[0].diagonal().add_(self._variance / self.frames)
        return LatentStatistics(
            mean.float(),
            covariances.float(),
            mean_variance.float(),
            (self._kl / self.frames).float(),
            torch.tensor(self.frames),
        )


def sample_prior(
    latent_dim: int,
    frames: int,
    *,
    generators: Sequence[torch.Generator],
    temperature: float = 1.0,
    statistics: LatentStatistics | None = None,
) -> Tensor:
    """Draw latents [B, D, frames], one for each generator.

    From N(0, I), or with statistics from the aggregate posterior as a Gaussian with its correlation over time.
    The spread around the mean is multiplied by `temperature`: 0 gives the mean, 1 the distribution as it is.
    Raises LatentError if the statistics have another latent_dim.
    """
    blank = torch.zeros(len(generators), latent_dim, frames, dtype=torch.float64)
    noise = standard_normal(blank, generators)
    if statistics is None:
        return (temperature * noise).float()
    if len(statistics.mean) != latent_dim:
        raise LatentError(
            f"the statistics are of {len(statistics.mean)} dimensions, the model has {latent_dim}"
        )
    process = _correlate(noise, statistics.covariances.double())
    return (statistics.mean.double()[:, None] + temperature * process).float()


def _correlate(noise: Tensor, covariances: Tensor) -> Tensor:
    """White noise [B, D, F] to a zero-mean process with these covariances [p + 1, D, D].

    The first frames are drawn from what is known of them, each from all before it, so there is no run-in.
    """
    _, dims, frames = noise.shape
    order = len(covariances) - 1
    steps = [_regression(covariances, seen) for seen in range(min(order, frames - 1) + 1)]
    result = torch.zeros_like(noise)
    for frame in range(frames):
        weights, scale = steps[min(frame, order)]  # [D, seen * D], [D, D]
        seen = weights.shape[1] // dims
        past = (
            result[..., frame - seen : frame].flip(-1).mT.flatten(1)
        )  # [B, seen * D], newest first
        result[..., frame] = past @ weights.mT + noise[..., frame] @ scale.mT
    return result


def _regression(covariances: Tensor, seen: int) -> tuple[Tensor, Tensor]:
    """Weights [D, seen * D] of the last frames, newest first, and the Cholesky factor [D, D] of what is left."""
    dims = covariances.shape[-1]
    # a bound on the smallest eigenvalue; a dimension without any spread would make the system singular
    ridge = (
        1e-6 * covariances[0].diagonal().mean().clamp(min=1e-12) * torch.eye(dims).to(covariances)
    )
    own = covariances[0] + ridge
    if seen == 0:
        return covariances.new_zeros(dims, 0), torch.linalg.cholesky(own)

    def between(j: int, k: int) -> Tensor:
        """Covariance of the frames j and k steps back."""
        lag = k - j
        return own if lag == 0 else covariances[lag] if lag > 0 else covariances[-lag].mT

    rows = [torch.cat([between(j, k) for k in range(1, seen + 1)], 1) for j in range(1, seen + 1)]
    past = torch.cat(rows)  # [seen * D, seen * D]
    cross = torch.cat(list(covariances[1 : seen + 1]), 1)  # [D, seen * D]
    weights = torch.linalg.solve(past, cross.mT).mT
    left = own - weights @ cross.mT
    return weights, torch.linalg.cholesky((left + left.mT) / 2)
