"""Quality against minutes of training: the default model beside waveform VAEs on the same music and machine.

    python benchmarks/quality_per_minute.py [--minutes 20] [--rows spec_frame oobleck ...]

Held-out clips of ten seconds after the same minutes of training on five hours of game music. Every model has 64 latents
at 43 frames a second of 44.1 kHz stereo, the same objective and optimizer and no discriminator; each has the batch,
crop and learning rate that suit it. oobleck is Stable Audio's at full size (strides changed for 43 Hz), oobleck_narrow
is narrow enough, in batches of four, to do nearly as many steps, dac_vae has the widths of DAC. The aim after 60
minutes was a mel distance below 1.5. A benchmark that was stopped goes on where it stopped; ViSQOL needs the extra
`perceptual`.
"""

from __future__ import annotations

from _quality import compare, music, scored

from audiovae.models import resolve
from audiovae.training.config import OptimizerConfig, TrainConfig

METRICS = ("mel", "stft", "si_sdr", "visqol")
AT_43_HZ = {"strides": (2, 4, 4, 4, 8)}  # published: 2, 4, 4, 8, 8 = 21.5 Hz
DAC_WIDTHS = {
    "width": 64,
    "decoder_width": 96,
    "strides": (2, 8, 8, 8),  # published: 2, 4, 8, 8 = 86 Hz
    "multiples": (2, 4, 8, 16),
}

ROWS = {  # name: preset, options, sounds in a batch, seconds of each, learning rate
    "spec_frame": ("spec_frame", {}, 16, 0.375, 1e-3),
    "oobleck": ("oobleck", AT_43_HZ, 2, 0.4, 1.5e-4),
    "oobleck_narrow": ("oobleck", AT_43_HZ | {"width": 12}, 4, 0.375, 5e-4),
    "dac_vae": ("oobleck", DAC_WIDTHS, 2, 0.4, 1e-4),
}


def config_of(row: str, minutes: float) -> TrainConfig:
    """The training of a row."""
    preset, options, batch_size, segment_seconds, learning_rate = ROWS[row]
    return TrainConfig(
        model=resolve(preset, options),
        data=music(segment_seconds=segment_seconds),
        optimizer=OptimizerConfig(learning_rate=learning_rate),
        minutes=minutes,
        batch_size=batch_size,
        tensorboard=False,
    )


if __name__ == "__main__":
    compare(
        __doc__, "Quality per minute of training", ROWS, config_of, scored(METRICS), minutes=20.0
    )
