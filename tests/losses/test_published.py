"""The losses of published systems, against independent implementations of them."""

from __future__ import annotations

from collections.abc import Callable

import librosa
import numpy as np
import pytest
import torch
from torch import Tensor

from audiovae.losses.published import a_weighted_stft, audiocraft_mel, rave_distance

RATE = 24_000


def pair(channels: int, length: int = 9_000) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    x = 0.2 * torch.randn(3, channels, length)
    return (x + 0.05 * torch.randn_like(x)).requires_grad_(), x


def apart(ours: Tensor, theirs: Tensor, x_hat: Tensor) -> float:
    """How far the gradients are apart, as a share; near-ties of logarithms may fall to either side."""
    a, b = (torch.autograd.grad(loss, x_hat)[0] for loss in (ours, theirs))
    return float((a - b).norm() / b.norm())


def test_stable_audios_is_made_of_auraloss(
    stable_audios_spectral_loss: Callable[[Tensor, Tensor, int], Tensor],
) -> None:
    x_hat, x = pair(2)
    ours, theirs = a_weighted_stft(x_hat, x, RATE), stable_audios_spectral_loss(x_hat, x, RATE)
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-4)
    assert apart(ours, theirs, x_hat) < 0.01
    mono_hat, mono = pair(1)
    ours = a_weighted_stft(mono_hat, mono, RATE)
    theirs = stable_audios_spectral_loss(mono_hat, mono, RATE)
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-4)


def test_audiocrafts_is_the_formula_with_librosas_filters() -> None:
    x_hat, x = pair(1, 6_001)
    total = 0.0
    for n_fft in (64, 128, 256, 512, 1024):
        filters = librosa.filters.mel(
            sr=RATE, n_fft=n_fft, n_mels=64, fmin=64.0, htk=True, norm=None
        )
        window = np.hanning(n_fft + 1)[:-1]
        hop, beside = n_fft // 4, (n_fft - n_fft // 4) // 2
        mels = []
        for side in (x_hat.detach().numpy(), x.numpy()):
            rows = np.pad(side[:, 0], ((0, 0), (beside, beside)), mode="reflect")
            frames = -(-(rows.shape[1] - n_fft) // hop) + 1
            rows = np.pad(rows, ((0, 0), (0, (frames - 1) * hop + n_fft - rows.shape[1])))
            cut = np.stack([rows[:, f * hop : f * hop + n_fft] for f in range(frames)], 1)
            power = np.abs(np.fft.rfft(cut * window)) ** 2 / (window**2).sum()
            mels.append(power @ filters.T)
        a, b = mels
        total += np.abs(a - b).mean() + ((np.log10(1e-5 + a) - np.log10(1e-5 + b)) ** 2).mean()
    assert float(audiocraft_mel(x_hat, x, RATE).detach()) == pytest.approx(total / 10, rel=1e-4)


def test_raves_is_the_formula() -> None:
    x_hat, x = pair(2)
    total = torch.zeros(())
    for n_fft in (2048, 1024, 512, 256, 128):
        a, b = (
            torch.stft(
                side.flatten(0, 1),
                n_fft,
                n_fft // 4,
                window=torch.hann_window(n_fft),
                return_complex=True,
            ).abs()
            for side in (x_hat, x)
        )
        total = total + (b - a).square().mean() / b.square().mean()
        total = total + (torch.log(b + 1e-7) - torch.log(a + 1e-7)).abs().mean()
    ours = rave_distance(x_hat, x)
    torch.testing.assert_close(ours, total, rtol=1e-4, atol=0)
    assert apart(ours, total, x_hat) < 0.01


@pytest.mark.parametrize(
    "loss", [a_weighted_stft, audiocraft_mel, lambda a, b, _: rave_distance(a, b)]
)
@pytest.mark.parametrize("kind", ["silent", "equal", "short"])
def test_hostile_crops_stay_finite(loss: object, kind: str) -> None:
    x = 0.1 * torch.randn(1, 2, 7 if kind == "short" else 3_000)
    x = torch.zeros_like(x) if kind == "silent" else x
    x_hat = x.clone() if kind == "equal" else 0.1 * torch.randn_like(x)
    x_hat.requires_grad_()
    value = loss(x_hat, x, RATE)  # type: ignore[operator]
    value.backward()
    assert value.detach().isfinite()
    assert x_hat.grad is not None and x_hat.grad.isfinite().all()
