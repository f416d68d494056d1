"""The two inverses: what each sees, and what the learned one starts from."""

import math

import pytest
import torch

from audiovae.audio.log_spectrogram import LogSpectrogram
from audiovae.models.inverse import GriffinLim, InverseHead

RATE, N_FFT, HOP = 8_000, 64, 16


def spectrogram(n_mels: int | None = 12) -> LogSpectrogram:
    return LogSpectrogram(RATE, N_FFT, HOP, n_mels)


def head(channels: int = 1, **options: int | None) -> InverseHead:
    torch.manual_seed(0)
    return InverseHead(spectrogram(**options), channels, width=16, depth=2).eval()


def noise(frames: int, channels: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return 0.1 * torch.randn(2, channels, frames * HOP, generator=generator)


@pytest.mark.parametrize("n_mels", [None, 12])
def test_the_head_starts_as_loud_as_the_bands_and_follows_them(n_mels: int | None) -> None:
    net = head(channels=2, n_mels=n_mels)
    x = noise(64, channels=2)
    bands = net.spectrogram(x)
    with torch.no_grad():
        loud, soft = net(bands), net(bands - 2)  # 40 dB less, in decades of magnitude
    assert loud.shape == x.shape
    assert 0.1 < float(loud.std() / x.std()) < 3
    assert float(soft.std() / loud.std()) == pytest.approx(0.01, rel=0.5)


def test_the_head_can_say_any_sound() -> None:
    """With the right a + i b for each bin the result is the sound itself: nothing stands between."""
    net, x = head(), noise(16)
    bands = net.spectrogram(x)
    turns = net.spectrogram.bank(x) / net.spectrogram.envelope(bands)  # [B, C, F, bins]
    rows = torch.cat([turns.real, turns.imag], -1)[:, 0]  # [B, F, 2 * bins]
    net.speak = Fixed(rows)
    torch.testing.assert_close(net(bands), x, rtol=0, atol=1e-5)


class Fixed(torch.nn.Module):
    """Says the same whatever it hears."""

    def __init__(self, said: torch.Tensor) -> None:
        super().__init__()
        self.said = said

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        return self.said


@pytest.mark.parametrize("iterations", [None, 0, 2])
def test_a_hop_of_sound_depends_on_its_margins_and_no_more(iterations: int | None) -> None:
    inverse = head() if iterations is None else GriffinLim(spectrogram(), iterations, 4).eval()
    left, right = inverse.margins
    x, middle = noise(64).double(), 32
    bands = inverse.double().spectrogram(x)
    with torch.no_grad():
        whole = inverse(bands)[..., middle * HOP : (middle + 1) * HOP]
        seen = []
        for frame in range(64):
            changed = bands.clone()
            changed[..., frame] += 1
            differs = inverse(changed)[..., middle * HOP : (middle + 1) * HOP] != whole
            if differs.any():
                seen.append(frame)
    assert seen == list(range(middle - left, middle + right + 1))


def test_in_training_griffin_lim_is_a_draft_without_a_gradient() -> None:
    inverse = GriffinLim(spectrogram(None), iterations=60, period=64)
    x = noise(64)
    bands = inverse.spectrogram(x).requires_grad_()

    def convergence() -> float:
        spectrum = inverse.spectrogram.bank(inverse(bands)).abs()
        truth = inverse.spectrogram.bank(x).abs()
        return float((spectrum - truth).norm() / truth.norm())

    assert not inverse.train()(bands).requires_grad
    draft = convergence()
    inverse.eval()
    assert convergence() < 0.5 * draft
    assert math.isfinite(draft)
