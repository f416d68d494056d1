"""How the default model was chosen: its parts exchanged one at a time, each trained for the same minutes on the same music.

    python benchmarks/front_end.py [--minutes 4]

Prints a table and writes docs/results/front_end.json. Each row is the default with the options that it names.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from quality import machine, music, train_and_score

from audiovae.evaluation.report import ResultsFile, table
from audiovae.models import resolve
from audiovae.training.config import TrainConfig

OUT = Path(__file__).parents[1] / "docs" / "results" / "front_end.json"
METRICS = ("mel", "stft", "si_sdr")

ROWS: dict[str, dict[str, Any]] = {
    "default: STFT 1024 / 256, phase of the sound, re and im": {},
    "phase of each frame": {"phase": "frame"},
    "window 2048 / 512": {"phase": "frame", "win_length": 2048, "frame_hop": 512, "stride": 2},
    "window 1024 / 512": {"frame_hop": 512, "stride": 2},
    "log magnitude and angle": {"head": "polar"},
    "MDCT 256": {"front_end": "mdct"},
    "MDCT 256, power 1/2": {"front_end": "mdct", "compression": 0.5},
    "power 1/2": {"compression": 0.5},
    "no blocks at the filter bank's rate": {"depth": 0, "latent_depth": 4},
    "narrow and deep": {"width": 192, "latent_width": 384, "depth": 2, "latent_depth": 5},
}


def main() -> None:
    """Train what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    results = ResultsFile(arguments.out)
    for name, options in ROWS.items():
        config = TrainConfig(
            model=resolve("spec_frame", options),
            data=music(1.5),
            minutes=arguments.minutes,
            batch_size=4,
            tensorboard=False,
        )
        key = {
            "row": name,
            "minutes": arguments.minutes,
            "model": config.model.model_dump(mode="json"),
        }
        results.row(key, lambda config=config: train_and_score(config, METRICS))
    results.put("machine", machine())
    print(table([{k: v for k, v in row.items() if k != "model"} for row in results.rows]))


if __name__ == "__main__":
    main()
