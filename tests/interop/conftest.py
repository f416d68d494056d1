"""What the parity tests with other toolkits share."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch
from torch import nn

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def fill() -> Callable[..., nn.Module]:
    """Give every parameter of a net distinct random values: an untouched peer proves nothing.

    `encoder` is how loud a layer of the encoder is: 1 lets small nets use many codes, 0.8 keeps the sines of deep ones
    from blowing rounding up.
    """

    def filled(net: nn.Module, encoder: float = 1.0) -> nn.Module:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                last = name.rpartition(".")[2]
                scale = (
                    0.5 if name.startswith("decoder") else encoder
                )  # a tanh would hide a loud end
                if "codebook" in name or last in ("weight_v", "original1"):
                    parameter.normal_(generator=generator)
                elif last == "alpha":
                    parameter.uniform_(0.6, 1.2, generator=generator)
                elif last in ("weight_g", "original0"):
                    parameter.uniform_(0.7 * scale, 1.3 * scale, generator=generator)
                else:
                    fan_in = parameter[0].numel() if parameter.ndim > 1 else 100
                    parameter.normal_(0.0, scale / fan_in**0.5, generator=generator)
        return net.eval()

    return filled
