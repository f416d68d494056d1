"""Every family side by side: the same notes, the same minutes, the same held-out clips.

    python benchmarks/families.py [--minutes 15] [--rows spec_frame oobleck ...]

Instrument notes at 24 kHz mono. Families with a continuous latent have about 3,000 numbers a second, those with codes
about 6 kbit/s, where their form lets them: Mimi's has 4.4, Jukebox's 39. The published nets are narrowed to what a CPU
can train in minutes. Each is trained with its own default objective and no discriminator. The token VAE learns the codes
that the row "spec_frame, 12 RVQ" makes of the training notes, for as many minutes again, and is heard through that codec.
`bits_s` is the KL, as a rate, of a continuous latent and the size of the packed codes of a discrete one; `perplexity` the
mean over codebooks; `coding` times real time, encoding and decoding on one thread in fp32. A benchmark that was stopped
goes on where it stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from _quality import compare, mean_scores, run_folder, trained
from torch import Tensor

from audiovae.api.codecs import codec_fields, sounding
from audiovae.data import DataSettings, open_dataset
from audiovae.data.notes import NotesData
from audiovae.data.tokens import SUFFIX, TokenFile, TokensData, write_tokens
from audiovae.models import Autoencoder, resolve
from audiovae.paths import cache_folder
from audiovae.training.config import OptimizerConfig, RunRecord, TrainConfig
from audiovae.training.diagnostics import CodesMeter, LatentMeter

METRICS = ("mel", "stft", "visqol")
HELD_OUT = NotesData(valid_crops=64)
MONO_24K = {"sample_rate": 24_000, "channels": 1}
AT_47_HZ = {"strides": (2, 4, 8, 8)}  # a latent frame for 512 samples
CODES = {"bottleneck.latent_dim": 64, "bottleneck.codebook_size": 1024}

ROWS: dict[str, tuple[str, dict[str, Any], float]] = {  # name: preset, options, learning rate
    "spec_frame": ("spec_frame", MONO_24K, 1e-3),
    "spec_frame, causal": ("spec_frame", MONO_24K | {"causal": True}, 1e-3),
    "spec_frame, 1 VQ": ("spec_frame", MONO_24K | CODES | {"bottleneck.kind": "vq"}, 1e-3),
    "spec_frame, 1 VQ, rotation trick": (
        "spec_frame",
        MONO_24K | CODES | {"bottleneck.kind": "vq", "bottleneck.gradient": "rotation"},
        1e-3,
    ),
    "spec_frame, 12 RVQ": (
        "spec_frame",
        MONO_24K | CODES | {"bottleneck.kind": "rvq", "bottleneck.n_codebooks": 12},
        1e-3,
    ),
    "spec_frame, 12 FSQ": (
        "spec_frame",
        MONO_24K | {"bottleneck.kind": "fsq", "bottleneck.n_codebooks": 12},
        1e-3,
    ),
    "hierarchy": ("hierarchy", MONO_24K | {"bottleneck.n_codebooks": 8}, 1e-3),
    "spec_conv": ("spec_conv", MONO_24K, 1e-3),
    "oobleck / 8": (
        "oobleck",
        MONO_24K | {"width": 16, "multiples": (1, 2, 4, 8)} | AT_47_HZ,
        5e-4,
    ),
    "rave_v2 / 4": ("rave_v2", {"size": 1, "sample_rate": 24_000}, 5e-4),
    "dac_24k / 8": ("dac_24k", {"size": 1, "n_codebooks": 8}, 5e-4),
    "encodec_24k / 4": ("encodec_24k", {"size": 2, "n_codebooks": 8}, 5e-4),
    "mimi / 4": ("mimi", {"size": 1}, 5e-4),
    "jukebox / 2": ("jukebox", {"size": 1, "sample_rate": 24_000}, 3e-4),
    "wave_vae": ("wave_vae", {"size": 1}, 1e-3),
}
CODEC, OF_ITS_CODES = "spec_frame, 12 RVQ", "token_transformer of 12 RVQ"
CROPS, TOKEN_SEED = 2048, 7  # of training notes that become token files, two seconds each


def config_of(row: str, minutes: float) -> TrainConfig:
    """The training of a row."""
    if row == OF_ITS_CODES:
        return token_config(minutes)
    preset, options, learning_rate = ROWS[row]
    return TrainConfig(
        model=resolve(preset, options),
        data=NotesData(),
        optimizer=OptimizerConfig(learning_rate=learning_rate),
        minutes=minutes,
        tensorboard=False,
    )


def token_config(minutes: float) -> TrainConfig:
    """The training of the token VAE; first that of its codec, if it is not done."""
    codec_config = config_of(CODEC, minutes)
    codec = trained(codec_config)
    folder = cache_folder("benchmark-tokens", str(codec.model_hash))
    write_crops_as_tokens(codec, NotesData(segment_seconds=2.0), CROPS, folder)
    fields = codec_fields(run_folder(codec_config))
    return TrainConfig(
        model=resolve("token_transformer", fields),
        data=TokensData(path=str(folder), segment_seconds=2.0),
        minutes=minutes,
        tensorboard=False,
    )


@torch.no_grad()
def write_crops_as_tokens(
    codec: Autoencoder, settings: DataSettings, crops: int, folder: Path
) -> None:
    """Code so many crops of the training sounds, a token file each; those that are there stay."""
    data = open_dataset(settings, sample_rate=codec.sample_rate, channels=codec.channels)
    (sizes,) = codec.codebook_sizes
    for item in range(crops):
        path = folder / f"{item:05}{SUFFIX}"
        if not path.exists():
            x = data.train_batch(TOKEN_SEED, 0, range(item, item + 1)).x
            (codes,) = codec.encode(x).codes
            write_tokens(path, TokenFile(codes[0], sizes, str(codec.model_hash)))


def train_and_score(config: TrainConfig) -> dict[str, Any]:
    """Train (or find done) the run of a config and say what the model is worth."""
    model = sounding(trained(config))
    held_out = open_dataset(HELD_OUT, sample_rate=model.sample_rate, channels=model.channels)
    clips = [batch.x for batch in held_out.valid_batches(1)]
    record = RunRecord.read(run_folder(config))
    return {
        "weights_m": sum(p.numel() for p in model.parameters()) / 1e6,
        "steps": record.total_steps if record else None,
        **mean_scores(model, clips, METRICS),
        **use_of_latent(model, clips),
        "coding": speed(model, torch.cat(clips, dim=-1)),
    }


@torch.no_grad()
def use_of_latent(model: Autoencoder, clips: Sequence[Tensor]) -> dict[str, float]:
    """The rate of the latent over clips [1, C, T], and how much of it is in use."""
    if model.codebook_sizes:
        codes = CodesMeter(model.codebook_sizes, model.side_levels)
        for x in clips:
            codes.update(model.encode(x).codes, x.shape[-1] / model.sample_rate)
        return {"bits_s": codes.bits_per_second, "perplexity": codes.figures()["perplexity"]}
    meter = LatentMeter(model.latent_dim, model.frame_rate)
    for x in clips:
        moments = model.encode(x).moments
        assert moments is not None
        meter.update(*moments)
    return {"bits_s": meter.bits_per_second, "active_units": meter.active_units}


@torch.no_grad()
def speed(model: Autoencoder, x: Tensor) -> float:
    """Seconds of sound encoded and decoded in a CPU second on one thread; the best of three."""
    x = x[..., : 10 * model.sample_rate]
    threads, best = torch.get_num_threads(), math.inf
    torch.set_num_threads(1)
    try:
        for _ in range(3):
            start = time.process_time()
            model.decode(model.encode(x).z, x.shape[-1])
            best = min(best, time.process_time() - start)
    finally:
        torch.set_num_threads(threads)
    return x.shape[-1] / model.sample_rate / best


if __name__ == "__main__":
    compare(
        __doc__,
        "Every family side by side",
        [*ROWS, OF_ITS_CODES],
        config_of,
        train_and_score,
        minutes=15.0,
    )
