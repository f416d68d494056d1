"""The page is one file that asks for nothing, and what it plays is what it was given."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import pytest
import soundfile
import torch
from torch import Tensor

from audiovae.evaluation.chart import Curve
from audiovae.evaluation.page import Clip, Figure, Page, Pair, Units, flac, render

RATE = 8_000
VOID = {"meta", "img", "link", "br"}


class Reader(HTMLParser):
    """Every tag with its attributes, the text, and whether what opens is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def noise(seed: int, seconds: float = 0.2) -> Tensor:
    shape = (2, round(seconds * RATE))
    return 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def clip(seed: int, caption: str) -> Clip:
    return Clip(noise(seed), RATE, caption)


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(
        title="A page <made> for a test",
        lead="One & a lead.",
        figures=[Figure("Mel distance", "1.23", "0 is equal.")],
        pairs=[Pair("Piano, C4", clip(0, "original"), [clip(1, "came back")])],
        walk=[clip(2, "here"), clip(3, "half-way"), clip(4, "there")],
        samples=[clip(5, 'a "sample"')],
        curves=[Curve("loss", [1, 2, 3], [3.0, 2.0, 1.0], "what is descended")],
        units=Units(kl=[1.0, 30.0, 0.1], variance=[0.02, 0.9, 0.001], threshold=0.01),
        facts=[("Machine", "two cores")],
    )


@pytest.fixture(scope="module")
def read(page: Page) -> Reader:
    return Reader(render(page))


def test_everything_that_opens_is_closed(read: Reader) -> None:
    assert read.open == []


def test_nothing_is_asked_of_the_network(page: Page, read: Reader) -> None:
    text = render(page)
    assert not re.search(r"(https?:)?//[a-z0-9]", re.sub(r"base64,[A-Za-z0-9+/=]+", "", text))
    links = [a[key] for _, a in read.tags for key in ("src", "href") if key in a]
    assert all(link.startswith("data:") for link in links)
    assert not read.all("link")
    assert "@import" not in text
    assert "url(" not in text


def test_every_sound_is_there_sample_for_sample(page: Page, read: Reader) -> None:
    pair = page.pairs[0]
    wanted = [pair.original, *pair.reconstructions, *page.walk, *page.samples]
    players = read.all("audio")
    assert len(players) == len(wanted)
    for player, sound in zip(players, wanted, strict=True):
        kind, _, content = player["src"].partition(";base64,")
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(content)), dtype="float32")
        assert (kind, rate) == ("data:audio/flac", RATE)
        assert (torch.from_numpy(samples.T) - sound.samples).abs().max() <= 2**-15
        assert "controls" in player  # without script the browser's own player is there


def test_every_sound_has_a_picture_and_a_name_for_those_who_do_not_see_it(read: Reader) -> None:
    names = [button["aria-label"] for button in read.all("button") if "aria-label" in button]
    assert names == [
        f"Play: {name}"
        for name in ("original", "came back", "here", "half-way", "there", 'a "sample"')
    ]
    pictures = read.all("img")
    assert len(pictures) == len(names)
    for image in pictures:
        assert base64.b64decode(image["src"].partition("base64,")[2]).startswith(b"\x89PNG")
        assert image["alt"].startswith("Spectrogram: ")


def test_text_is_escaped_and_said(read: Reader) -> None:
    text = " ".join(read.text)
    for words in ("A page <made> for a test", "One & a lead.", "1.23", "0 is equal.", "two cores"):
        assert words in text


def test_dimensions_are_sorted_and_the_active_ones_marked(read: Reader) -> None:
    charts = [[], []]
    for rect in read.all("rect"):
        charts[0 if len(charts[0]) < 3 else 1].append(rect)
    for chart in charts:
        assert ["marked" in rect["class"] for rect in chart] == [True, True, False]
        heights = [float(rect["height"]) for rect in chart]
        assert heights == sorted(heights, reverse=True)


def test_empty_parts_are_left_out() -> None:
    read = Reader(render(Page("Title", "Lead")))
    assert read.open == []
    assert not read.all("h2")
    assert not read.all("audio")


def test_style_and_script_are_inside(page: Page) -> None:
    text = render(page)
    assert "prefers-color-scheme: dark" in text
    assert 'classList.add("script")' in text


def test_a_sound_above_full_scale_is_clipped_not_wrapped() -> None:
    loud = Clip(torch.tensor([[2.0, -2.0, 0.5]]), RATE, "")
    samples, _ = soundfile.read(io.BytesIO(flac(loud)))
    assert samples == pytest.approx([1.0, -1.0, 0.5], abs=1e-4)
