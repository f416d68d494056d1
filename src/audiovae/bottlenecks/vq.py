"""Vector quantization: the latent frame becomes the nearest of V codes  (van den Oord 2017, VQ-VAE).

    z = nearest code e to h,     loss = reconstruction + |sg[h] - e|^2 + beta |h - sg[e]|^2,     dz/dh = 1 (straight through)

The two terms are given as means over numbers, unweighted: "codebook" and "commitment". With update "ema" the codes
follow averages and there is no "codebook". Instead of being copied from z to h, the gradient may be turned and scaled as
e is from h: the rotation trick (Fifty 2024, eq. 4).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn.functional import normalize

from audiovae.bottlenecks.codebook import CodebookConfig
from audiovae.bottlenecks.rvq import RVQ, Estimator, RVQConfig, straight_through


class VQConfig(CodebookConfig):
    """One codebook."""

    kind: Literal["vq"] = "vq"
    update: Literal["ema", "gradient"] = "gradient"
    gradient: Literal["straight_through", "rotation"] = "straight_through"


def rotation_trick(e: Tensor, q: Tensor) -> Tensor:
    """q in value; in gradient s R e, held fixed the scale s = |q| / |e| and the rotation R that turns e towards q.

    R = 1 - 2 r r^T + 2 q^ e^T   with unit vectors e^, q^ and r = (e^ + q^) / |e^ + q^|.     e, q [..., d]
    """
    still, q = e.detach(), q.detach()
    scale = q.norm(dim=-1, keepdim=True) / still.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    unit_e, unit_q = normalize(still, dim=-1), normalize(q, dim=-1)
    middle = normalize(unit_e + unit_q, dim=-1)
    across: Tensor = (e * middle).sum(-1, keepdim=True) * middle
    along: Tensor = (e * unit_e).sum(-1, keepdim=True) * unit_q
    turned: Tensor = scale * (e - 2 * across + 2 * along)
    return q + (turned - turned.detach())


ESTIMATORS: dict[str, Estimator] = {
    "straight_through": straight_through,
    "rotation": rotation_trick,
}


class VQ(RVQ):
    """h [B, W, F] -> z [B, D, F], codes [B, 1, F].  With width None, h is [B, D, F]."""

    def __init__(self, config: VQConfig, width: int | None, frame_rate: float) -> None:
        shared = {name: getattr(config, name) for name in CodebookConfig.model_fields}
        row = RVQConfig(**shared, n_codebooks=1, dropout=0.0)
        super().__init__(row, width, frame_rate, ESTIMATORS[config.gradient])
