"""Small saved models and a small trained run, made once for all tests of the verbs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import audiovae
from audiovae.checkpoint import save_model
from audiovae.models import build, resolve


def saved(folder: Path, seed: int, **options: object) -> Path:
    """A model folder with fresh weights of the test size."""
    torch.manual_seed(seed)
    save_model(folder, build(resolve("spec_frame", {"size": 0, **options})))
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stereo model at 44.1 kHz."""
    return saved(tmp_path_factory.mktemp("models") / "stereo", 0)


@pytest.fixture(scope="session")
def other_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same architecture with other weights."""
    return saved(tmp_path_factory.mktemp("models") / "other", 1)


@pytest.fixture(scope="session")
def mono_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mono model at 16 kHz."""
    return saved(tmp_path_factory.mktemp("models") / "mono", 2, sample_rate=16_000, channels=1)


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three steps on made-up tones."""
    return audiovae.train(
        model={"preset": "spec_frame", "size": 0},
        data={"preset": "synth", "segment_seconds": 0.1, "valid_crops": 2},
        out=tmp_path_factory.mktemp("runs") / "tones",
        quiet=True,
        steps=3,
        batch_size=2,
        tensorboard=False,
    )
