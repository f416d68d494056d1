"""What a discriminator costs and what it buys: the default model against each of them, in the same minutes.

    python benchmarks/discriminators.py [--minutes 20] [--rows none patches ...]

The music and the held-out clips are those of the benchmark `quality_per_minute`. The discriminators begin at three
tenths of the run; since minutes are equal, one that costs much leaves fewer steps. Wide ones hear a crop of a fifth of a
second at random, a half of what the model is trained on.
"""

from __future__ import annotations

from typing import Any

from _quality import compare, music, scored

from audiovae.models import resolve
from audiovae.training.config import TrainConfig

METRICS = ("mel", "stft", "si_sdr", "visqol")
CROP = {"window_seconds": 0.1875}
ROWS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "patches": {},
    "patches, crops": CROP,
    "patches of 1024, crops": {"discriminators": [{"kind": "patches", "n_ffts": [1024]}], **CROP},
    "stft, EnCodec's, crops": {"discriminators": [{"kind": "stft"}], **CROP},
    "bands, DAC's, crops": {
        "discriminators": [{"kind": "bands"}],
        "loss": "lsgan",
        "normalise": True,
        **CROP,
    },
    "period, DAC's, crops": {
        "discriminators": [{"kind": "period"}],
        "loss": "lsgan",
        "normalise": True,
        **CROP,
    },
    "scale, RAVE's, crops": {
        "discriminators": [{"kind": "scale"}],
        "relative_features": True,
        "skip_features": 1,
        **CROP,
    },
}


def config_of(row: str, minutes: float) -> TrainConfig:
    """The training of a row."""
    return TrainConfig(
        model=resolve("spec_frame", {}),
        data=music(),
        adversarial=ROWS[row],
        minutes=minutes,
        tensorboard=False,
    )


if __name__ == "__main__":
    compare(__doc__, "Discriminators", ROWS, config_of, scored(METRICS), minutes=20.0)
