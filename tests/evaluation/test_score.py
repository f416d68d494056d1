"""Scores: what a metric must say of equal, worse and impossible sounds; and what is missing is named."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from audiovae.audio.compare import mel_distance, si_sdr, stft_distance
from audiovae.errors import AudioError, ConfigError, MissingPackageError
from audiovae.evaluation import PERCEPTUAL_METRICS, score

RATE = 16_000


def speechlike(seconds: float = 1.5) -> Tensor:
    """A buzzing tone that comes and goes in noise, stereo."""
    t = torch.arange(int(seconds * RATE)) / RATE
    buzz = torch.stack([torch.sin(2 * torch.pi * 140 * k * t) / k for k in range(1, 20)]).sum(0)
    burst = (torch.sin(2 * torch.pi * 3 * t) > -0.3) * 0.2
    noise = torch.randn(len(t), generator=torch.Generator().manual_seed(0))
    return torch.stack([burst * buzz, burst * buzz + 0.01 * noise])


def noisy(x: Tensor, level: float) -> Tensor:
    return x + level * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))


def test_signal_metrics_are_the_losses_of_the_same_name() -> None:
    x = speechlike()
    y = noisy(x, 0.05)
    expected = {"mel": mel_distance, "stft": stft_distance, "si_sdr": si_sdr}
    assert score(x, y, RATE) == {
        name: float(distance(y[None], x[None], RATE)) for name, distance in expected.items()
    }


COMPILED = pytest.mark.skipif(find_spec("pesq") is None, reason="pesq and libsvm want a compiler")


@pytest.mark.parametrize(
    "name",
    [
        "zimtohrli",
        "stoi",
        pytest.param("pesq", marks=COMPILED),
        pytest.param("visqol_speech", marks=COMPILED),
    ],
)
def test_more_noise_is_judged_worse(name: str) -> None:
    x = speechlike()
    scores = [score(x, noisy(x, level), RATE, [name])[name] for level in (0.0, 0.02, 0.2)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] - scores[2] > 0.1


@pytest.mark.slow
def test_visqol_judges_more_noise_worse_and_equality_best() -> None:
    x = speechlike()
    scores = [score(x, noisy(x, level), RATE, ["visqol"])["visqol"] for level in (0.0, 0.05)]
    assert scores[0] == pytest.approx(4.732, abs=0.01)  # its highest value
    assert scores[1] < 4.6


def test_a_batch_scores_the_mean_of_its_items() -> None:
    x = torch.stack([speechlike(), speechlike()])
    y = torch.stack([noisy(x[0], 0.01), noisy(x[1], 0.1)])
    names = ["mel", "stoi"]
    single = [score(x[i], y[i], RATE, names) for i in (0, 1)]
    both = score(x, y, RATE, names)
    for name in names:
        assert both[name] == pytest.approx((single[0][name] + single[1][name]) / 2, rel=1e-5)


@pytest.mark.parametrize("name", PERCEPTUAL_METRICS)
def test_short_and_silent_sounds_are_refused_before_a_package_sees_them(name: str) -> None:
    x = speechlike()
    short = x[:, : RATE // 10]
    with pytest.raises(AudioError, match=rf"{name} cannot judge this sound of 0\.10 s"):
        score(short, short, RATE, [name])
    for pair in ((x, 0 * x), (0 * x, x)):
        with pytest.raises(
            AudioError, match=r"of 1\.50 s: too short or silent; it needs two sounds"
        ):
            score(*pair, RATE, [name])


def test_what_a_package_refuses_becomes_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> float:
        raise IndexError("list index out of range")

    monkeypatch.setitem(PERCEPTUAL_METRICS, "pesq", (RATE, refuse))
    with pytest.raises(AudioError, match=r"pesq cannot judge .* list index out of range"):
        score(speechlike(), speechlike(), RATE, ["pesq"])


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("zimtohrli", "zimtohrli", "zimtohrli"),
        ("pesq", "pesq", "pesq"),
        ("stoi", "pystoi", "pystoi"),
    ],
)
def test_a_missing_package_is_named_with_what_to_install(
    name: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    message = rf"needs the package {package}.*pip install 'audiovae\[perceptual\]'.*compiler"
    with pytest.raises(MissingPackageError, match=message):
        score(speechlike(), speechlike(), RATE, [name])


def test_speech_visqol_refuses_to_run_without_its_lattice_mapper(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(MissingPackageError, match=r"ai-edge-litert .*without its lattice mapper"):
        score(speechlike(), speechlike(), RATE, ["visqol_speech"])


def test_unknown_metrics_and_unequal_shapes_are_refused() -> None:
    x = speechlike()
    with pytest.raises(ConfigError, match=r"no metric 'visqoll'; did you mean 'visqol'\?"):
        score(x, x, RATE, ["visqoll"])
    with pytest.raises(AudioError, match=r"one shape.* got \(2, 24000\) and \(2, 9\)"):
        score(x, x[:, :9], RATE)
