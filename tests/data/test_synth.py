"""Each factor of a tone is in the sound exactly as its label says: closed forms, one factor at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audiovae.data.synth import HIGH, LOW, RMS, Factors, SynthData, SynthDataset, open_synth, tone
from audiovae.errors import DataError

RATE = 32_000
PLAIN = Factors(
    pitch=69.0, tilt=-6.0, attack=1e-6, decay=1e6, vibrato=0.0, noise=-200.0, pan=0.0
)  # a steady tone of 440 Hz


def mono(factors: Factors, **changes: int) -> np.ndarray:
    arguments = {"sample_rate": RATE, "length": RATE, "channels": 1} | changes
    return tone(factors, **arguments)[0].astype(np.float64)


def opened(channels: int = 2, **values: object) -> SynthDataset:
    return open_synth(SynthData(segment_seconds=0.1, **values), sample_rate=RATE, channels=channels)


def test_a_steady_tone_is_the_sum_of_its_harmonics() -> None:
    t = np.arange(RATE) / RATE
    a = np.arange(1, 33) ** (-6.0 / (20 * math.log10(2)))
    a *= RMS / math.sqrt((a**2).sum() / 2)
    wanted = sum(a[k - 1] * np.sin(2 * np.pi * 440 * k * t) for k in range(1, 33))
    assert np.abs(mono(PLAIN)[1:] - wanted[1:]).max() < 1e-6


@pytest.mark.parametrize("tilt", [-18.0, -6.0, -3.0])
def test_tilt_is_what_the_harmonics_lose_an_octave(tilt: float) -> None:
    magnitude = np.abs(np.fft.rfft(mono(PLAIN._replace(tilt=tilt))))  # one bin a hertz
    for k in (1, 2, 4, 8):
        step = 20 * math.log10(magnitude[440 * 2 * k] / magnitude[440 * k])
        assert step == pytest.approx(tilt, abs=0.02)


@given(pitch=st.floats(36, 127), vibrato=st.floats(0, 0.5))
@settings(max_examples=20, deadline=None)
def test_nothing_aliases(pitch: float, vibrato: float) -> None:
    f0 = 440 * 2 ** ((pitch - 69) / 12)
    factors = PLAIN._replace(pitch=pitch, vibrato=vibrato, tilt=-3.0)
    magnitude = np.abs(np.fft.rfft(mono(factors) * np.hanning(RATE)))
    below = magnitude[: max(1, int(0.9 * f0) - 40)]  # the side bands of the vibrato reach less far
    assert below.max() < 1e-3 * magnitude.max()


def test_the_envelope_rises_and_falls_in_the_times_of_its_labels() -> None:
    shaped = mono(PLAIN._replace(attack=0.1, decay=0.25))
    steady = mono(PLAIN)
    t = np.arange(RATE) / RATE
    heard = np.abs(steady) > 0.05
    envelope = shaped[heard] / steady[heard]
    wanted = np.where(t < 0.1, t / 0.1, np.exp(-(t - 0.1) / 0.25))[heard]
    assert np.abs(envelope - wanted).max() < 1e-4


def test_vibrato_swings_the_frequency_by_its_semitones() -> None:
    sound = mono(PLAIN._replace(vibrato=0.5, tilt=-200.0))  # a lone sine
    spectrum = np.fft.fft(sound)
    spectrum[RATE // 2 :] = 0  # the analytic signal
    frequency = np.diff(np.unwrap(np.angle(np.fft.ifft(spectrum)))) * RATE / (2 * np.pi)
    inner = frequency[RATE // 10 : -RATE // 10]
    assert inner.max() == pytest.approx(440 * 2 ** (0.5 / 12), rel=1e-3)
    assert inner.min() == pytest.approx(440 * (2 - 2 ** (0.5 / 12)), rel=2e-3)
    swing = np.abs(np.fft.rfft((inner - inner.mean()) * np.hanning(len(inner)), 10 * RATE))
    assert np.argmax(swing) / 10 == pytest.approx(5.5, abs=0.11)


@pytest.mark.parametrize("noise", [-60.0, -20.0, 0.0])
def test_noise_has_its_level_against_the_harmonics(noise: float) -> None:
    rest = mono(PLAIN._replace(noise=noise)) - mono(PLAIN)
    level = 20 * math.log10(rest.std() / mono(PLAIN).std())
    assert level == pytest.approx(noise, abs=0.2)


@pytest.mark.parametrize("pan", [-1.0, -0.3, 0.0, 0.8, 1.0])
def test_pan_keeps_the_power_and_only_moves_it(pan: float) -> None:
    left, right = tone(PLAIN._replace(pan=pan), sample_rate=RATE, length=4_000)
    centre = tone(PLAIN, sample_rate=RATE, length=4_000, channels=1)[0]
    assert np.allclose(left**2 + right**2, centre**2, atol=1e-6)
    angle = math.atan2(float(np.abs(right).max()), float(np.abs(left).max()))
    assert angle / (math.pi / 4) - 1 == pytest.approx(pan, abs=1e-5)


@given(st.builds(Factors, *(st.floats(low, high) for low, high in zip(LOW, HIGH, strict=True))))
@settings(max_examples=50, deadline=None)
def test_no_tone_of_the_ranges_clips(factors: Factors) -> None:
    assert np.abs(mono(factors, length=RATE // 2)).max() < 1


def test_a_pitch_without_a_harmonic_below_nyquist_is_silent_but_for_its_noise() -> None:
    assert np.abs(mono(PLAIN._replace(pitch=127.0), sample_rate=8_000)).max() < 1e-8


def test_labels_are_the_factors_that_made_the_sound() -> None:
    batch = opened().train_batch(3, 5, range(4))
    quiet = SynthData().harmonics
    for i in range(4):
        factors = Factors(**{name: float(batch.labels[name][i]) for name in Factors._fields})
        again = tone(
            factors._replace(noise=-200.0), sample_rate=RATE, length=3_200, harmonics=quiet
        )
        # float32 labels and the noise are all that differs
        noise = RMS * 10 ** (factors.noise / 20)
        assert np.abs(batch.x[i].numpy() - again).max() < 6 * noise + 1e-3


def test_an_item_depends_on_seed_step_and_its_number_alone() -> None:
    whole = opened().train_batch(7, 3, range(5))
    parts = [opened().train_batch(7, 3, items) for items in (range(2), range(2, 5))]
    assert torch.equal(whole.x, torch.cat([p.x for p in parts]))
    for other in (opened().train_batch(8, 3, range(5)), opened().train_batch(7, 4, range(5))):
        assert not set(other.labels["pitch"].tolist()) & set(whole.labels["pitch"].tolist())


def test_factors_cover_their_ranges_and_do_not_hang_together() -> None:
    labels = opened().train_batch(0, 0, range(400)).labels
    values = np.stack([labels[name].numpy() for name in Factors._fields])
    for row, low, high in zip(values, LOW, HIGH, strict=True):
        # float32 may round a label to just outside
        assert low - 1e-5 <= row.min()
        assert row.max() <= high + 1e-5
        assert row.min() < low + 0.05 * (high - low)
        assert row.max() > high - 0.05 * (high - low)
    assert np.abs(np.corrcoef(values) - np.eye(len(values))).max() < 0.2


def test_validation_is_fixed_and_its_batches_may_be_short() -> None:
    data = opened(valid_crops=5)
    sizes = [len(batch.x) for batch in data.valid_batches(2)]
    first, again = (torch.cat([b.x for b in data.valid_batches(n)]) for n in (2, 5))
    assert sizes == [2, 2, 1]
    assert torch.equal(first, again)


def test_one_channel_has_no_pan() -> None:
    batch = opened(channels=1).train_batch(0, 0, range(1))
    assert set(batch.labels) == set(Factors._fields) - {"pan"}


def test_the_fingerprint_tells_what_the_items_depend_on() -> None:
    prints = {
        opened().fingerprint,
        opened(channels=1).fingerprint,
        opened(harmonics=8).fingerprint,
        open_synth(SynthData(), sample_rate=RATE, channels=2).fingerprint,
    }
    assert len(prints) == 4
    assert opened().fingerprint == opened().fingerprint


def test_the_description_names_the_factors() -> None:
    assert "pitch, tilt, attack, decay, vibrato, noise, pan" in opened().describe()


def test_more_than_two_channels_are_refused() -> None:
    with pytest.raises(DataError, match="mono or stereo, got channels=6"):
        opened(channels=6)
