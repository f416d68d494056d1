"""How the default model was chosen: its parts exchanged one at a time, each trained for the same minutes on the same music.

    python benchmarks/front_end.py [--minutes 4]

The music and the held-out clips are those of the benchmark `quality_per_minute`. Each row is the default with the options,
or settings of the objective, that it names. One run each, and the steps that fit into the same minutes differ by a tenth
from run to run of one net: rows that lie a few per cent apart are equal.
"""

from __future__ import annotations

from typing import Any

from _quality import compare, music, scored

from audiovae.models import resolve
from audiovae.training.config import TrainConfig
from audiovae.training.objective import ObjectiveConfig

METRICS = ("mel", "stft", "si_sdr")
MODELS: dict[str, dict[str, Any]] = {
    "the default: STFT 1024 / 256, gain and shape": {},
    "16 bands": {"bands": 16},
    "64 bands": {"bands": 64},
    "no envelope: compressed re and im": {"head": "complex"},
    "no envelope: log magnitude and angle": {"head": "polar"},
    "phase of each frame": {"phase": "frame"},
    "window 2048 / 512": {"phase": "frame", "win_length": 2048, "frame_hop": 512, "stride": 2},
    "window 1024 / 512": {"frame_hop": 512, "stride": 2},
    "MDCT 256": {"front_end": "mdct"},
    "no blocks at the filter bank's rate": {"depth": 0, "latent_depth": 4},
    "narrow and deep": {"width": 192, "latent_width": 384, "depth": 2, "latent_depth": 5},
}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "spectral terms from the first step on": {"spectral": {}},
    "no L1 term": {"weights": {"l1": 0.0}},
    "no complex term": {"weights": {"complex": 0.0}},
    "no STFT term": {"weights": {"stft": 0.0}},
}


def config_of(row: str, minutes: float) -> TrainConfig:
    """The training of a row."""
    return TrainConfig(
        model=resolve("spec_frame", MODELS.get(row, {})),
        objective=ObjectiveConfig(**OBJECTIVES.get(row, {})),
        data=music(),
        minutes=minutes,
        tensorboard=False,
    )


if __name__ == "__main__":
    compare(
        __doc__,
        "How the default model was chosen",
        [*MODELS, *OBJECTIVES],
        config_of,
        scored(METRICS),
        minutes=4.0,
    )
