"""Back to sound without training: librosa's results step by step, none of its errors larger, and nothing seen too far."""

import math

import librosa
import numpy as np
import pytest
import torch

from audiovae.audio.inversion import (
    griffin_lim,
    mel_envelope,
    mel_inverse,
    random_phases,
    reach,
)
from audiovae.audio.mel import mel_filters
from audiovae.audio.transforms import STFT, window_margins
from audiovae.errors import ConfigError

RATE, N_FFT, HOP = 16_000, 512, 128


def sounds() -> dict[str, torch.Tensor]:
    """A dying chord, a burst of noise and a chirp, half a second each and silent at both ends, [T] in float64."""
    t = torch.arange(RATE // 2).double() / RATE
    tones = [
        torch.sin(2 * math.pi * f * k * t) / k for f in (220, 277.2, 329.6) for k in range(1, 6)
    ]
    noise = torch.randn(len(t), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    raw = {
        "chord": 0.1 * sum(tones) * torch.exp(-3 * t),
        "noise": 0.1 * noise * torch.exp(-80 * (t - 0.25) ** 2),
        "chirp": 0.2 * torch.sin(2 * math.pi * (200 * t + 2_000 * t * t)),
    }
    padded = {name: torch.nn.functional.pad(x, (2_048, 2_048)) for name, x in raw.items()}
    return {name: x[: len(x) // N_FFT * N_FFT] for name, x in padded.items()}


def bank() -> STFT:
    return STFT(N_FFT, HOP, phase="sound").double()


def librosa_griffin_lim(magnitude: torch.Tensor, **options: object) -> torch.Tensor:
    """Its sound on our frame grid; [F, N] as our transform scales them."""
    y = librosa.griffinlim(
        magnitude.mT.numpy() * N_FFT**0.5,
        n_fft=N_FFT,
        hop_length=HOP,
        center=False,
        dtype=np.float64,
        random_state=0,
        **options,
    )
    before, _ = window_margins(N_FFT, HOP, causal=False)
    return torch.from_numpy(y[before : before + HOP * len(magnitude)].copy())


def convergence(y: torch.Tensor, magnitude: torch.Tensor) -> float:
    """Relative distance of the spectrum from what was asked for (Sturmel & Daudet 2011)."""
    return float((bank()(y).abs() - magnitude).norm() / magnitude.norm())


@pytest.mark.parametrize("momentum", [0.0, 0.99])
def test_each_iteration_equals_librosa(momentum: float) -> None:
    """Of noise: where a bin is silent its phase is rounding."""
    stft = STFT(N_FFT, HOP).double()
    magnitude = stft(sounds()["noise"]).abs()
    ours = griffin_lim(
        magnitude,
        stft,
        iterations=6,
        momentum=momentum,
        start=torch.ones(1, dtype=torch.complex128),
    )
    theirs = librosa_griffin_lim(magnitude, n_iter=6, momentum=momentum, init=None)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))


@pytest.mark.parametrize("name", sounds())
def test_converges_no_worse_than_librosa(name: str) -> None:
    magnitude = bank()(sounds()[name]).abs()
    theirs = convergence(librosa_griffin_lim(magnitude, n_iter=32), magnitude)
    assert convergence(griffin_lim(magnitude, bank()), magnitude) <= 1.02 * theirs
    tiled = random_phases(*magnitude.shape, period=4)
    assert convergence(griffin_lim(magnitude, bank(), start=tiled), magnitude) <= 1.3 * theirs


def test_the_true_phases_are_a_fixed_point() -> None:
    x = sounds()["chirp"]
    spectrum = bank()(x)
    y = griffin_lim(spectrum.abs(), bank(), iterations=5, start=torch.sgn(spectrum))
    torch.testing.assert_close(y, x, rtol=0, atol=1e-9)


def test_momentum_is_faster() -> None:
    magnitude = bank()(sounds()["chord"]).abs()
    plain = convergence(griffin_lim(magnitude, bank(), momentum=0.0), magnitude)
    assert convergence(griffin_lim(magnitude, bank()), magnitude) < 0.8 * plain


def test_a_piece_that_begins_at_a_period_equals_the_whole_but_for_its_reach() -> None:
    magnitude, iterations, period = bank()(sounds()["chord"]).abs(), 3, 8

    def sound(values: torch.Tensor) -> torch.Tensor:
        phases = random_phases(*values.shape, period=period)
        return griffin_lim(values, bank(), iterations=iterations, start=phases)

    halo = reach(bank(), iterations) + 2  # and the windows over a hop
    first, last = 24, 72
    assert halo < first
    piece = sound(magnitude[first:last])[halo * HOP : -halo * HOP]
    whole = sound(magnitude)[(first + halo) * HOP : (last - halo) * HOP]
    torch.testing.assert_close(piece, whole, rtol=0, atol=1e-9)


def test_a_batch_equals_its_single_items() -> None:
    magnitude = torch.stack([bank()(x).abs() for x in sounds().values()])
    together = griffin_lim(magnitude, bank(), iterations=4)
    apart = torch.stack([griffin_lim(item, bank(), iterations=4) for item in magnitude])
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-9)


def test_random_phases_are_unit_the_same_and_repeat() -> None:
    phases = random_phases(10, 5, period=4)
    torch.testing.assert_close(phases.abs(), torch.ones(10, 5, dtype=torch.float64))
    assert torch.equal(phases[:4], phases[4:8])
    assert torch.equal(phases[:2], phases[8:])
    assert torch.equal(phases, random_phases(10, 5, period=4))
    assert len(random_phases(10, 5).real.unique()) == 50


@pytest.mark.parametrize("name", sounds())
def test_mel_inverse_is_as_near_as_librosa(name: str) -> None:
    """As near to the bands, and to the spectrum that they came from."""
    spectrum = bank()(sounds()[name]).abs() * N_FFT**0.5
    filters = mel_filters(RATE, N_FFT, 64).double()
    bands = spectrum @ filters.mT
    theirs = torch.from_numpy(
        librosa.feature.inverse.mel_to_stft(bands.mT.numpy(), sr=RATE, n_fft=N_FFT, power=1.0)
    ).mT
    ours = mel_inverse(bands, filters)
    assert (ours >= 0).all()
    for back, truth in ((lambda s: s @ filters.mT, bands), (lambda s: s, spectrum)):
        assert (back(ours) - truth).norm() <= 1.01 * (back(theirs) - truth).norm()


def test_mel_inverse_gives_soft_bands_as_exactly_as_loud_ones() -> None:
    filters = mel_filters(RATE, N_FFT, 64).double()
    slope = torch.logspace(0, -4, N_FFT // 2 + 1, dtype=torch.float64)  # 80 dB down
    bands = slope @ filters.mT
    torch.testing.assert_close(mel_inverse(bands, filters) @ filters.mT, bands, rtol=1e-3, atol=0)


def test_a_flat_spectrum_comes_back_from_its_bands() -> None:
    filters = mel_filters(RATE, N_FFT, 64).double()
    flat = torch.full((3, N_FFT // 2 + 1), 0.3, dtype=torch.float64)
    covered = filters.sum(0) > 0
    back = mel_inverse(flat @ filters.mT, filters)
    torch.testing.assert_close(back[:, covered], flat[:, covered], rtol=1e-9, atol=0)
    assert (back[:, ~covered] == 0).all()
    weights, offsets = mel_envelope(filters)
    envelope = (flat @ filters.mT).log10() @ weights.mT + offsets  # every bin, covered or not
    torch.testing.assert_close(envelope, flat.log10(), rtol=1e-9, atol=0)


def test_silent_bands_give_silence() -> None:
    assert (mel_inverse(torch.zeros(2, 64), mel_filters(RATE, N_FFT, 64)) == 0).all()
    assert (griffin_lim(torch.zeros(4, 257), STFT(N_FFT, HOP), iterations=2) == 0).all()


def test_what_cannot_be_is_refused() -> None:
    stft = STFT(N_FFT, HOP)
    with pytest.raises(ConfigError, match="has 257 bins, got 256"):
        griffin_lim(torch.zeros(4, 256), stft)
    with pytest.raises(ConfigError, match=r"iterations >= 0 .*got -1 and 0\.99"):
        griffin_lim(torch.zeros(4, 257), stft, iterations=-1)
    with pytest.raises(ConfigError, match=r"momentum in \[0, 1\], got 32 and 1\.5"):
        griffin_lim(torch.zeros(4, 257), stft, momentum=1.5)
