"""A page to listen to: one HTML file with its sounds, pictures, charts, style and script inside.

Nothing is asked of the network, so the page can be mailed and opens the same in ten years.  Sounds are FLAC of
16 bits: what is heard is what the model made, not what a lossy coder made of it.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

import numpy as np
import soundfile
from torch import Tensor

from audiovae.evaluation.chart import Curve, bar_chart, line_chart
from audiovae.evaluation.picture import loudest_db, mel_levels, spectrogram_png, tick_heights


class Clip(NamedTuple):
    """A sound to hear and to see."""

    samples: Tensor  # [C, T]
    sample_rate: int  # Hz
    caption: str


class Pair(NamedTuple):
    """An original and what came back, in one way or more."""

    title: str
    original: Clip
    reconstructions: Sequence[Clip]


class Figure(NamedTuple):
    """A number and what it says."""

    name: str
    value: str
    meaning: str  # one sentence


class Units(NamedTuple):
    """The latent dimensions: what each carries."""

    kl: Sequence[float]  # nats per second of each
    variance: Sequence[float]  # of each posterior mean over the data
    threshold: float  # a unit is active if its variance is above


class Page(NamedTuple):
    """All that is shown; a part that is empty is left out."""

    title: str
    lead: str  # a paragraph
    figures: Sequence[Figure] = ()
    pairs: Sequence[Pair] = ()
    walk: Sequence[Clip] = ()  # from one sound to another
    samples: Sequence[Clip] = ()  # from the prior
    curves: Sequence[Curve] = ()
    units: Units | None = None
    facts: Sequence[tuple[str, str]] = ()  # how it was made: name, value


def render(page: Page) -> str:
    """Return the page as HTML.  Raises MissingPackageError without matplotlib."""
    sections = [
        _section("The figures", "", _figures(page.figures)),
        _section(
            "Notes it has never heard",
            "Held out from the training. Left is the note, right is what is left of it after the encoder has "
            "pressed it into the latent and the decoder has made a sound of that again. Click a picture to play it.",
            "".join(_pair(pair) for pair in page.pairs),
        ),
        _section(
            "From one instrument to another",
            "The first and the last are two notes, encoded and decoded; between them the latent moves on a straight "
            "line, which is not the same as mixing the two sounds.",
            _row(page.walk, "Play all"),
        ),
        _section(
            "Sounds that never were",
            "No recording goes in here: a latent is drawn at random with the statistics that the latents of notes have, "
            "and decoded.",
            _row(page.samples),
        ),
        _section(
            "How it learned",
            "Each figure over the training steps: faint as measured, strong as a running mean.",
            f'<div class="charts">{"".join(_curve(curve) for curve in page.curves)}</div>'
            if page.curves
            else "",
        ),
        _section(
            "What each latent dimension carries",
            "Sorted by information. A dimension is active, in colour, if the mean of its posterior moves with the "
            "sound; one that does not move carries nothing.",
            _units(page.units) if page.units else "",
        ),
        _section("How it was made", "", _facts(page.facts)),
    ]
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(page.title)}</title><style>{_asset('page.css')}</style></head>\n"
        f"<body><header><h1>{html.escape(page.title)}</h1><p>{html.escape(page.lead)}</p></header>\n"
        f"<main>{''.join(sections)}</main>\n<script>{_asset('page.js')}</script></body></html>\n"
    )


def flac(clip: Clip) -> bytes:
    """A clip as FLAC, 16 bits, clipped at full scale."""
    file = io.BytesIO()
    samples = np.asarray(clip.samples.numpy(), np.float32).clip(-1, 1).T
    soundfile.write(file, samples, clip.sample_rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def data_uri(content: bytes, kind: str) -> str:
    """Content as a link that carries it; kind is a MIME type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _asset(name: str) -> str:
    return resources.files("audiovae.evaluation").joinpath(name).read_text(encoding="utf-8")


def _section(title: str, text: str, body: str) -> str:
    if not body:
        return ""
    paragraph = f"<p>{html.escape(text)}</p>" if text else ""
    return f"<section><h2>{html.escape(title)}</h2>{paragraph}{body}</section>\n"


def _figures(figures: Sequence[Figure]) -> str:
    tiles = "".join(
        f"<div><dt>{html.escape(f.name)}</dt><dd><b>{html.escape(f.value)}</b>"
        f"<span>{html.escape(f.meaning)}</span></dd></div>"
        for f in figures
    )
    return f'<dl class="figures">{tiles}</dl>' if tiles else ""


def _pair(pair: Pair) -> str:
    # One scale of brightness for both: a difference of level is seen.
    reference = loudest_db(mel_levels(pair.original.samples, pair.original.sample_rate))
    both = "".join(_sound(clip, reference) for clip in (pair.original, *pair.reconstructions))
    return f'<article><h3>{html.escape(pair.title)}</h3><div class="pair">{both}</div></article>\n'


def _row(clips: Sequence[Clip], play_all: str = "") -> str:
    if not clips:
        return ""
    button = (
        f'<button type="button" class="all">{html.escape(play_all)}</button>' if play_all else ""
    )
    return f'{button}<div class="row">{"".join(_sound(clip, None) for clip in clips)}</div>'


def _sound(clip: Clip, reference_db: float | None) -> str:
    """A picture that plays when it is clicked; without script the browser's own player stands below it."""
    caption = html.escape(clip.caption)
    picture = spectrogram_png(clip.samples, clip.sample_rate, reference_db=reference_db)
    marks = "".join(
        f'<span style="bottom:{100 * height:.1f}%">{label}</span>'
        for label, height in tick_heights(clip.sample_rate).items()
    )
    return (
        f'<figure class="sound"><button type="button" class="picture" aria-label="Play: {caption}">'
        f'<img alt="Spectrogram: {caption}" src="{data_uri(picture, "image/png")}">'
        f'<span class="hertz" aria-hidden="true">{marks}</span><i class="head"></i></button>'
        f"<figcaption>{caption}</figcaption>"
        f'<audio controls preload="none" src="{data_uri(flac(clip), "audio/flac")}"></audio></figure>'
    )


def _curve(curve: Curve) -> str:
    chart = line_chart(curve)
    if not chart:
        return ""
    return (
        f"<figure><figcaption><b>{html.escape(curve.name)}</b> {html.escape(curve.meaning)}</figcaption>"
        f"{chart}</figure>"
    )


def _units(units: Units) -> str:
    order = sorted(range(len(units.kl)), key=lambda i: -units.kl[i])
    kl, variance = ([float(values[i]) for i in order] for values in (units.kl, units.variance))
    active = [v > units.threshold for v in variance]
    charts = (
        (
            "KL divergence from the prior, nats per second: the information that a dimension carries.",
            bar_chart(kl, active, title="KL of each dimension"),
        ),
        (
            f"Variance of the posterior's mean, with the limit of {units.threshold:g} above which a dimension "
            "counts as active.",
            bar_chart(
                variance,
                active,
                title="Variance of each posterior mean",
                limit=units.threshold,
                logarithmic=True,
            ),
        ),
    )
    return '<div class="charts wide">{}</div>'.format(
        "".join(
            f"<figure><figcaption>{html.escape(text)}</figcaption>{chart}</figure>"
            for text, chart in charts
        )
    )


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
        for name, value in facts
    )
    return f"<table>{rows}</table>" if rows else ""
