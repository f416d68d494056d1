"""Sounds of unequal length in one batch: each as it is alone, zeros after it, in every family."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from audiovae import models
from audiovae.errors import AudioError, LatentError
from audiovae.models import Autoencoder
from audiovae.padded import decode_padded, encode_padded, pad

OF_SOUND = [name for name in models.PRESETS if name != "token_transformer"]  # whose input is codes


@pytest.fixture(scope="module", params=OF_SOUND)
def model(request: pytest.FixtureRequest) -> Autoencoder:
    """Every family of sounds at size 0."""
    torch.manual_seed(0)
    return models.build(models.resolve(request.param, {"size": 0})).eval()


def sounds(model: Autoencoder) -> list[Tensor]:
    """One sample, a hop less one, some hops, a bit more, and the longest twice."""
    hop, generator = model.hop_length, torch.Generator().manual_seed(1)
    lengths = (1, hop - 1, 3 * hop, 3 * hop + 5, 7 * hop + hop // 3, 7 * hop + hop // 3)
    return [0.3 * torch.randn(model.channels, max(1, n), generator=generator) for n in lengths]


@torch.inference_mode()
def test_each_sound_is_coded_as_it_is_alone(model: Autoencoder) -> None:
    alone = sounds(model)
    x, mask = pad(alone)
    latent = encode_padded(model, x, mask)
    x_hat = decode_padded(model, latent.z, mask)
    for item, sound in enumerate(alone):
        single = model.encode(sound[None])
        frames, length = single.z.shape[-1], sound.shape[-1]
        assert latent.mask[item].sum() == frames == model.frames_of(length)
        assert (latent.z[item, :, :frames] - single.z[0]).abs().max() <= 1e-5 * single.z.abs().max()
        assert (latent.z[item, :, frames:] == 0).all()
        for level, codes in zip(latent.codes, single.codes, strict=True):
            assert torch.equal(level[item, :, : codes.shape[-1]], codes[0])
        expected = model.decode(single.z, length)[0]
        assert (x_hat[item, :, :length] - expected).abs().max() <= 1e-5 * expected.abs().max()
        assert (x_hat[item, :, length:] == 0).all()
    assert x_hat.std() > 0


@torch.inference_mode()
def test_padding_that_is_coded_would_change_the_end() -> None:
    """What a mask is good for: zeros behind a sound are sound to the net."""
    torch.manual_seed(0)
    net = models.build(models.resolve("oobleck", {"size": 0})).eval()
    x, mask = pad(sounds(net))
    naive, exact = net.encode(x).z, encode_padded(net, x, mask)
    differs = ((naive - exact.z) * exact.mask[:, None]).abs().amax((1, 2))
    assert (differs[:4] > 1e-3).all() and (differs[4:] < 1e-4).all()


def test_masks_that_cannot_be_are_refused() -> None:
    net = models.build(models.resolve("spec_frame", {"size": 0})).eval()
    x = torch.zeros(2, 2, 300)
    mask = torch.ones(2, 300, dtype=torch.bool)
    for wrong in (mask[:1], mask.float(), mask[0]):
        with pytest.raises(AudioError, match=r"a mask is bool \[2, samples\]"):
            encode_padded(net, x, wrong)
    hole, empty = mask.clone(), mask.clone()
    hole[0, 7] = False
    empty[1] = False
    for wrong in (hole, empty):
        with pytest.raises(AudioError, match="True from an item's first sample to its last"):
            encode_padded(net, x, wrong)
    with pytest.raises(LatentError, match="300 samples need 3 latent frames, got 1"):
        decode_padded(net, torch.zeros(2, net.latent_dim, 1), mask)
    with pytest.raises(AudioError, match="no sound to pad"):
        pad([])
