"""RAVE v2 against acids-rave's own classes, put together as its v2.gin says; it has no checkpoint layout that we read.

What is compared: encoder, decoder, the filter bank, the noise branch's filters, and the discriminators of its training.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import scipy.signal
import torch
from torch import Tensor, nn

from audiovae.losses.discriminators import Discriminators, PeriodConfig, ScaleConfig
from audiovae.models.rave import RaveV2, RaveV2Config, impulse_responses, rave_v2

pytestmark = pytest.mark.filterwarnings("ignore")  # deprecated parts of torch, of the package


class StandIn(types.ModuleType):
    """A module that its modules import and the nets do not use: has a class of every name, and any part."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {}) if name[0].isupper() else StandIn(name)

    def __call__(self) -> str:
        return ""


STAND_INS = ("GPUtil", "lmdb", "pytorch_lightning", "torchaudio", "torchaudio.transforms")
ODD = RaveV2Config(  # small and uneven
    channels=1,
    n_bands=4,
    width=3,
    ratios=(4, 2),
    dilations=((1, 3), (2,)),
    bottleneck={"kind": "gaussian", "latent_dim": 5, "parametrisation": "softplus"},
)
CONFIGS = {"odd": ODD, "published": rave_v2()}


@pytest.fixture(scope="module")
def peer() -> Iterator[Any]:
    """Its modules, with the settings of v1.gin that v2.gin includes: no biases, weight norm."""
    found = importlib.util.find_spec("rave")
    assert found is not None and found.submodule_search_locations is not None
    before = set(sys.modules)
    package = types.ModuleType("rave")  # the real one would import a whole training
    package.__path__ = list(found.submodule_search_locations)
    sys.modules["rave"] = package
    held = {name: sys.modules.get(name) for name in STAND_INS}
    for name in STAND_INS:
        sys.modules[name] = StandIn(name)
        sys.modules[name].__spec__ = importlib.machinery.ModuleSpec(name, None)
    scipy.signal.kaiser = scipy.signal.windows.kaiser  # where it was when the package was written
    gin, cc = importlib.import_module("gin"), importlib.import_module("cached_conv")
    for name in ("Conv1d", "ConvTranspose1d"):
        setattr(cc, name, partial(getattr(cc, name), bias=False))
    modules = {
        name: importlib.import_module(f"rave.{name}")
        for name in ("blocks", "core", "discriminator", "pqmf")
    }
    gin.bind_parameter("normalization.mode", "weight_norm")
    yield types.SimpleNamespace(**modules)
    gin.clear_config()
    del scipy.signal.kaiser
    for name in set(sys.modules) - before:
        del sys.modules[name]
    sys.modules.update({name: module for name, module in held.items() if module is not None})


def nets(peer: Any, config: RaveV2Config) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder as v2.gin builds them."""
    shared = {
        "data_size": config.n_bands,
        "capacity": config.width,
        "ratios": list(config.ratios),
        "latent_size": config.bottleneck.latent_dim,
        "kernel_size": 3,
        "dilations": [list(dilations) for dilations in config.dilations],
    }
    encoder = peer.blocks.EncoderV2(**shared, n_out=2)
    decoder = peer.blocks.GeneratorV2(**shared, amplitude_modulation=True)
    return encoder.eval(), decoder.eval()


@torch.no_grad()
def fill(ours: nn.Module, theirs: nn.Module) -> None:
    """The same random values in both: their parameters come in one order, length before direction."""
    generator = torch.Generator().manual_seed(0)
    mine, its = list(ours.parameters()), list(theirs.parameters())
    assert [p.shape for p in mine] == [p.shape for p in its]
    names = [name for name, _ in theirs.named_parameters()]
    for a, b, name in zip(mine, its, names, strict=True):
        if name.endswith("weight_g"):
            b.uniform_(0.7, 1.4, generator=generator)
        else:
            b.normal_(0.0, 0.1, generator=generator)
        a.copy_(b)


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.01
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@torch.inference_mode()
@pytest.mark.parametrize("name", CONFIGS)
def test_encoder_and_decoder_are_the_genuine_ones(peer: Any, name: str) -> None:
    config = CONFIGS[name]
    model = RaveV2(config).eval()
    encoder, decoder = nets(peer, config)
    fill(model.encoder, encoder)
    fill(nn.ModuleList([model.decoder, model.head]), decoder)
    frames = 6
    bands = 0.3 * torch.randn(2, config.n_bands, frames * config.hop_length // config.n_bands)
    assert_close(model.encoder(bands), encoder(bands))
    z = torch.randn(2, config.bottleneck.latent_dim, frames)
    assert_close(model.bands(z), decoder(z))


@torch.inference_mode()
def test_the_filter_bank_is_the_genuine_one(peer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Away from the ends, where the two count what lies beyond in other ways."""
    design = peer.pqmf.kaiser_filter  # today's numpy makes no number of the array that `fmin` gives
    monkeypatch.setattr(
        peer.pqmf, "kaiser_filter", lambda wc, *more: design(np.ravel(wc)[0], *more)
    )
    monkeypatch.setattr(  # and today's scipy has another name for twice this
        peer.pqmf, "firwin", lambda *a, nyq, **k: scipy.signal.firwin(*a, fs=2 * nyq, **k)
    )
    model = RaveV2(rave_v2(0))
    bank = peer.pqmf.CachedPQMF(attenuation=100, n_band=16)
    x = 0.3 * torch.randn(1, 1, 16 * 400)
    ours, theirs = model.pqmf(x), bank(x)
    inner = slice(60, -60)
    assert_close(ours[..., inner], theirs[..., inner])
    back, forth = model.pqmf.inverse(ours), bank.inverse(theirs)
    inner, late = slice(1920, -1920), slice(1936, -1904)  # a frame: theirs pads one side more
    assert_close(back[..., inner], forth[..., late])


@torch.inference_mode()
def test_the_noise_branch_filters_as_the_genuine_one(peer: Any) -> None:
    gains = torch.rand(2, 3, 4, 5)
    assert_close(impulse_responses(gains), peer.core.amp_to_impulse_response(gains, 8))
    h = torch.randn(4, 7)
    assert_close(2 * torch.sigmoid(h).pow(2.3) + 1e-7, peer.core.mod_sigmoid(h))


@torch.inference_mode()
@pytest.mark.parametrize("length", [4096, 4093])
def test_the_discriminators_are_the_genuine_ones(peer: Any, length: int) -> None:
    """Logits and what feature matching compares, with the recipe's settings."""
    shared = {"in_size": 1, "out_size": 1, "capacity": 6, "n_layers": 4, "stride": 4}
    periods, scales = [2, 3, 5, 7, 11], 3
    widths, x = (6, 12, 24, 48), 0.3 * torch.randn(2, 1, length)
    columns = {"widths": widths, "strides": (4, 4, 4, 4), "last_kernel_size": 1, "slope": 0.2}
    config = PeriodConfig(**columns, padding="constant", tap="convolution")

    def net(**options: Any) -> Any:
        return lambda in_size: peer.discriminator.ConvNet(
            **{**shared, "in_size": in_size, **options}
        )

    pairs = [
        (
            Discriminators((config,), 1),
            peer.discriminator.MultiPeriodDiscriminator(
                periods, net(conv=nn.Conv2d, kernel_size=(5, 1))
            ),
        ),
        (
            Discriminators((ScaleConfig(scales=scales, widths=widths),), 1),
            peer.discriminator.MultiScaleDiscriminator(scales, net(conv=nn.Conv1d, kernel_size=15)),
        ),
    ]
    for ours, theirs in pairs:
        fill(ours, theirs)
        for verdict, features in zip(ours(x), theirs(x), strict=True):
            assert_close(verdict.logits, features[-1])
            assert len(verdict.features) == len(features) == 5
            for a, b in zip(verdict.features, features, strict=True):
                assert_close(a, b)
