"""Quality against minutes of training: the default model beside waveform VAEs on the same music and machine.

    python benchmarks/quality_per_minute.py [--minutes 20] [--rows spec_frame oobleck ...]

Every row has 64 latents at 43 frames a second of 44.1 kHz stereo, the same objective and optimizer, no discriminator; each
has the batch and learning rate that suit it. Prints a table and writes docs/results/quality_per_minute.json. A benchmark
that was stopped goes on where it stopped. Needs the extra `perceptual` for ViSQOL.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from quality import machine, music, train_and_score

from audiovae.evaluation.report import ResultsFile, table
from audiovae.models import ModelConfig, resolve
from audiovae.training.config import OptimizerConfig, TrainConfig

OUT = Path(__file__).parents[1] / "docs" / "results" / "quality_per_minute.json"
METRICS = ("mel", "stft", "si_sdr", "visqol")
AT_43_HZ = {"strides": (2, 4, 4, 4, 8)}  # published: 2, 4, 4, 8, 8 = 21.5 Hz

ROWS: dict[str, tuple[ModelConfig, int, float, float]] = {
    # name: model, sounds in a batch, seconds of each, learning rate
    "spec_frame": (resolve("spec_frame"), 4, 1.5, 1e-3),
    "oobleck": (resolve("oobleck", AT_43_HZ), 2, 0.4, 1.5e-4),
    "oobleck_narrow": (resolve("oobleck", AT_43_HZ | {"width": 12}), 4, 1.5, 5e-4),
    "dac_vae": (
        resolve(
            "oobleck",
            {"width": 64, "decoder_width": 96, "strides": (2, 8, 8, 8), "multiples": (2, 4, 8, 16)},
        ),
        2,
        0.4,
        1e-4,
    ),
}


def config_of(row: str, minutes: float) -> TrainConfig:
    """The training of a row."""
    model, batch_size, segment_seconds, learning_rate = ROWS[row]
    return TrainConfig(
        model=model,
        data=music(segment_seconds),
        optimizer=OptimizerConfig(learning_rate=learning_rate),
        minutes=minutes,
        batch_size=batch_size,
        tensorboard=False,
    )


def main() -> None:
    """Train what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    results = ResultsFile(arguments.out)
    for row in arguments.rows:
        config = config_of(row, arguments.minutes)
        key = {
            "row": row,
            "minutes": arguments.minutes,
            "model": config.model.model_dump(mode="json"),
        }
        results.row(key, lambda config=config: train_and_score(config, METRICS) | machine())
    results.put("machine", machine())
    shown = [{k: v for k, v in row.items() if k != "model"} for row in results.rows]
    print(table(shown))


if __name__ == "__main__":
    main()
