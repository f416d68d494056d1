"""What the demo's page shows of a model that was trained on notes."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from audiovae.api.evaluation import Info, info
from audiovae.api.opening import inverses_of, inverted_by
from audiovae.data.notes import Note, NotesDataset
from audiovae.evaluation import score
from audiovae.evaluation.chart import Curve
from audiovae.evaluation.page import Clip, Figure, Page, Pair, Units
from audiovae.latents import LatentStatistics, interpolate, sample_prior
from audiovae.models import Autoencoder
from audiovae.nn.noise import generators
from audiovae.training.config import RunRecord
from audiovae.training.diagnostics import ACTIVE_VARIANCE

PREFERRED = (0, 24, 40, 56, 73, 11, 19, 66, 33, 46, 52, 81)  # programs that most people know
PAIRS, WALK_STEPS, SAMPLES = 8, 7, 6
SAMPLE_SECONDS = 2.0
MEANINGS = {
    "loss": "what is descended: every term times its weight",
    "mel": "log-mel distance",
    "stft": "spectral convergence and log magnitude",
    "l1": "difference of the samples",
    "complex": "difference of the spectra, phase and all",
    "kl": "information in the latent, nats per second",
    "validation mel": "log-mel distance on held-out notes",
    "validation si_sdr": "of the waveform on held-out notes, dB",
    "validation active_units": "dimensions that carry something",
}


class Trial(NamedTuple):
    """A model, what it was trained on, and how it did."""

    model: Autoencoder
    data: NotesDataset
    run: Path  # the run folder
    figures: Mapping[str, float]  # mel, stft, si_sdr, kl, active_units, encode_speed, decode_speed
    statistics: LatentStatistics  # over the held-out notes
    seconds: float  # that the training took, set-up included


def showcase(trial: Trial, seed: int = 0) -> Page:
    """All that there is to hear and see of a trial; `seed` chooses the samples from the prior."""
    model, data = trial.model, trial.data
    about = info(model)
    return Page(
        title="A variational autoencoder, trained just now",
        lead=_lead(trial, about),
        figures=_tiles(trial),
        pairs=[_pair(model, data, note) for note in chosen_notes(data.held_out, PAIRS)],
        walk=_walk(model, data),
        samples=_samples(model, seed),
        curves=read_curves(trial.run / "log.jsonl"),
        units=Units(
            kl=(trial.statistics.kl * model.frame_rate).tolist(),
            variance=trial.statistics.mean_variance.tolist(),
            threshold=ACTIVE_VARIANCE,
        ),
        facts=_facts(trial, about),
    )


def chosen_notes(notes: Sequence[Note], count: int) -> list[Note]:
    """Up to `count` notes to show: one a program, well-known programs first, the loudest near middle C."""
    rank = {program: place for place, program in enumerate(PREFERRED)}
    best: dict[int, Note] = {}
    for note in sorted(notes, key=lambda n: (abs(n.pitch - 60), -n.velocity)):
        best.setdefault(note.program, note)
    return sorted(best.values(), key=lambda n: (rank.get(n.program, len(rank)), n.program))[:count]


def chosen_ends(notes: Sequence[Note]) -> tuple[Note, Note]:
    """Two notes to walk between: of two families if there are two, as near in pitch as can be."""
    candidates = chosen_notes(notes, len(PREFERRED))
    known = [n for n in notes if n.program in {c.program for c in candidates}]
    loud = [n for n in known if n.velocity == max(m.velocity for m in known)]
    ends = list(combinations(loud, 2)) or [(loud[0], loud[0])]
    return min(ends, key=lambda e: (e[0].family == e[1].family, abs(e[0].pitch - e[1].pitch)))


def read_curves(log: Path) -> list[Curve]:
    """The loss, its terms and the validation's figures from a run's log, in the order of MEANINGS."""
    points: dict[str, list[tuple[float, float]]] = {name: [] for name in MEANINGS}
    for text in log.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        found = {f"validation {k}": v for k, v in line.get("validation", {}).items()} or line
        for name in MEANINGS.keys() & found.keys():
            if found[name] is not None:
                points[name].append((line["step"], found[name]))
    return [
        Curve(name, [x for x, _ in values], [y for _, y in values], MEANINGS[name])
        for name, values in points.items()
        if values
    ]


def _pair(model: Autoencoder, data: NotesDataset, note: Note) -> Pair:
    """A note and what comes back of it, by every inverse that the model has."""
    x = data.sound(note)
    z = model.encode(x[None]).z
    clips = []
    ways: Sequence[str | None] = inverses_of(model) or [None]
    for inverse in ways:
        with inverted_by(model, inverse):
            x_hat = model.decode(z, x.shape[-1])[0]
        mel = score(x, x_hat, model.sample_rate, ["mel"])["mel"]
        how = "" if inverse is None else f" by {inverse.replace('_', '-')}"
        clips.append(Clip(x_hat, model.sample_rate, f"reconstruction{how}, mel distance {mel:.2f}"))
    return Pair(f"{note.name}, {note.pitch_name}", Clip(x, model.sample_rate, "original"), clips)


def _walk(model: Autoencoder, data: NotesDataset) -> list[Clip]:
    """Sounds on the way between two held-out notes."""
    ends = chosen_ends(data.held_out)
    sounds = [data.sound(note) for note in ends]
    length = max(sound.shape[1] for sound in sounds)
    a, b = (model.encode(_filled(sound, length)[None]).z for sound in sounds)
    clips = []
    for step in range(WALK_STEPS):
        share = step / (WALK_STEPS - 1)
        x = model.decode(interpolate(a, b, share), length)[0]
        end = {0: ends[0], WALK_STEPS - 1: ends[1]}.get(step)
        caption = f"{end.name}, {end.pitch_name}" if end else f"{100 * share:.0f} %"
        clips.append(Clip(x, model.sample_rate, caption))
    return clips


def _samples(model: Autoencoder, seed: int) -> list[Clip]:
    """Sounds from the prior that the run's last validation has fitted."""
    length = round(SAMPLE_SECONDS * model.sample_rate)
    frames = -(-length // model.hop_length)
    z = sample_prior(
        model.latent_dim,
        frames,
        generators=generators(seed, items=SAMPLES),
        statistics=getattr(model, "statistics", None),
    )
    sounds = model.decode(z, length)
    return [Clip(x, model.sample_rate, f"sample {i + 1}") for i, x in enumerate(sounds)]


def _filled(x: Tensor, length: int) -> Tensor:
    return torch.nn.functional.pad(x, (0, length - x.shape[-1]))


def _lead(trial: Trial, about: Info) -> str:
    programs = len(set(trial.data.notes.table["program"].tolist()))
    return (
        f"audiovae demo made this page. It trained a {about.kind} VAE with "
        f"{_weights(about.parameters)} for {_minutes(trial.seconds)} on single notes of "
        f"{programs} instruments. The notes below were kept from it: the model turns each second of "
        f"sound into {about.frame_rate:.0f} times {about.latent_dim} numbers, and those back into sound."
    )


def _tiles(trial: Trial) -> list[Figure]:
    figures = trial.figures
    bits = figures["kl"] / math.log(2) / 1000
    speed = f"Seconds of sound in a second, on {torch.get_num_threads()} thread(s)."
    return [
        Figure(
            "Mel distance",
            f"{figures['mel']:.2f}",
            "How far the spectra are apart as an ear would weigh them; 0 is equal, below 1 a good codec.",
        ),
        Figure(
            "STFT distance",
            f"{figures['stft']:.2f}",
            "The same at every frequency alike, level and log level; 0 is equal.",
        ),
        Figure(
            "SI-SDR",
            f"{figures['si_sdr']:.1f} dB",
            "How well the waveform itself is met; below 0 the phases are the model's own.",
        ),
        Figure(
            "Information",
            f"{figures['kl']:,.0f} nats/s",
            f"What the latent says beyond its prior: {bits:.1f} kbit each second.",
        ),
        Figure(
            "Active units",
            f"{figures['active_units']:.0f} of {trial.model.latent_dim}",
            "Latent dimensions that move with the sound.",
        ),
        Figure(
            "Encoding",
            f"{figures['encode_speed']:,.0f}\u00d7 real time",
            speed,
        ),
        Figure(
            "Decoding",
            f"{figures['decode_speed']:,.0f}\u00d7 real time",
            speed,
        ),
    ]


def _facts(trial: Trial, about: Info) -> list[tuple[str, str]]:
    """How the page came about: name and value."""
    record = RunRecord.read(trial.run)
    training = _minutes(trial.seconds) + " with set-up"
    if record is not None:
        samples = record.total_steps * record.config.batch_size * trial.data.length
        heard = samples / trial.model.sample_rate / 60
        training += f", {record.total_steps:,} steps, {heard:,.0f} minutes of sound"
    return [
        ("Model", f"{about.kind}, {about.parameters:,} weights"),
        (
            "Latent",
            f"{about.latent_dim} numbers, {about.frame_rate:.1f} times a second: "
            f"{about.compression_in_elements:.1f} numbers of sound become 1",
        ),
        ("Data", trial.data.describe()),
        ("Training", training),
        ("Machine", f"{os.cpu_count()} processors ({platform.machine()}), {platform.system()}"),
        ("Software", f"Python {platform.python_version()}, PyTorch {torch.__version__}"),
        ("Go on", f"audiovae reconstruct {trial.run} IN.wav OUT.wav"),
    ]


def _weights(count: int) -> str:
    return f"{count / 1e6:.1f} million weights" if count >= 1e5 else f"{count:,} weights"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.0f} seconds"
