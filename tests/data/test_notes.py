"""The notes: what an item is, which side it stands on, and what it says of itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from audiovae.config import parse
from audiovae.data.augment import Augment
from audiovae.data.base import shape_json
from audiovae.data.notes import FAMILIES, LEAD_SECONDS, Note, NotesData, NotesDataset, open_notes
from audiovae.errors import ConfigError, DataError

PLAIN = Augment(gain=0, polarity=0, phase=0, swap=0)
SMALL = NotesData(
    programs=(24, 26),
    pitches=(57, 69),
    hold_seconds=0.3,
    release_seconds=0.2,
    segment_seconds=0.3,
    valid_share=0.2,
    augment=PLAIN,
)
RATE = 16_000


def opened(**changes: object) -> NotesDataset:
    config = SMALL.model_copy(update=changes)
    return open_notes(config, sample_rate=RATE, channels=2, multiple_of=256)


@pytest.fixture(scope="module")
def data() -> NotesDataset:
    return opened()


def pairs(data: NotesDataset, rows: np.ndarray) -> set[tuple[int, int]]:
    table = data.notes.table[rows]
    return set(zip(table["program"].tolist(), table["pitch"].tolist(), strict=True))


def test_an_item_depends_on_seed_step_and_its_number_alone(data: NotesDataset) -> None:
    whole = data.train_batch(7, 3, range(6))
    parts = [opened().train_batch(7, 3, items) for items in (range(4, 6), range(4))]
    assert torch.equal(whole.x, torch.cat([parts[1].x, parts[0].x]))
    assert whole.sources == parts[1].sources + parts[0].sources
    others = [data.train_batch(8, 3, range(6)), data.train_batch(7, 4, range(6))]
    assert all(other.sources != whole.sources for other in others)


def test_labels_say_what_is_heard(data: NotesDataset) -> None:
    batch = data.train_batch(0, 0, range(8))
    for i, source in enumerate(batch.sources):
        program, pitch, velocity, family = (
            int(batch.labels[name][i]) for name in ("program", "pitch", "velocity", "family")
        )
        name = data.notes.about["names"][str(program)]
        note = Note(program, pitch, velocity, name)
        place, seconds = source.split("@")
        assert place == f"notes/{name}/{pitch}/{velocity}"
        assert (FAMILIES[family], note.family) == ("guitar", "guitar")
        lead = round(LEAD_SECONDS * RATE) + RATE
        padded = torch.nn.functional.pad(data.sound(note), (lead, RATE))
        about = lead + round(float(seconds) * RATE)  # to the millisecond
        assert any(
            torch.equal(batch.x[i], padded[:, start : start + data.length])
            for start in range(about - 16, about + 17)
        )


def test_crops_begin_at_most_the_lead_before_the_note_and_end_within_it(data: NotesDataset) -> None:
    seconds = [
        float(source.split("@")[1])
        for step in range(20)
        for source in data.train_batch(0, step, range(8)).sources
    ]
    longest = data.notes.table["frames"].max() / RATE
    assert -LEAD_SECONDS <= min(seconds) < -0.05
    assert 0.05 < max(seconds) <= longest - data.length / RATE + 1e-3


def test_no_twin_of_a_held_out_note_is_trained_on(data: NotesDataset) -> None:
    trained, held_out = pairs(data, data.train_rows), pairs(data, data.held_rows)
    assert not trained & held_out
    assert len(trained) + len(held_out) == 3 * 13
    heard = {
        (int(p), int(k))
        for step in range(30)
        for p, k in zip(
            *(data.train_batch(0, step, range(8)).labels[n] for n in ("program", "pitch")),
            strict=True,
        )
    }
    assert heard <= trained
    assert len(heard) > 0.9 * len(trained)


def test_a_note_keeps_its_side_when_the_ranges_change(data: NotesDataset) -> None:
    wider = opened(programs=(23, 27), velocities=(100,))
    here = pairs(data, data.held_rows)
    there = pairs(wider, wider.held_rows)
    assert here == {pair for pair in there if 24 <= pair[0] <= 26}


def test_the_held_out_share_is_about_what_was_asked_for() -> None:
    everything = opened(programs=(0, 39), velocities=(100,), hold_seconds=0.02, release_seconds=0.0)
    share = len(everything.held_rows) / len(everything.notes.table)
    assert share == pytest.approx(0.2, abs=0.05)


def test_one_pair_at_least_is_held_out() -> None:
    data = opened(pitches=(57, 58), valid_share=1e-6)
    assert len(pairs(data, data.held_rows)) == 1


def test_validation_is_the_same_notes_from_their_beginning_every_time() -> None:
    data = opened(valid_crops=5)
    first, again = (torch.cat([b.x for b in data.valid_batches(n)]) for n in (2, 5))
    assert torch.equal(first, again)
    assert len(first) == 5
    held_out = {(n.name, n.pitch, n.velocity) for n in data.held_out}
    for batch in data.valid_batches(5):
        for x, source in zip(batch.x, batch.sources, strict=True):
            _, name, pitch, place = source.split("/")
            velocity = int(place.removesuffix("@0.000"))
            assert (name, int(pitch), velocity) in held_out
            note = next(n for n in data.held_out if n[1:] == (int(pitch), velocity, name))
            sound = data.sound(note)[:, : data.length]
            assert torch.equal(x[:, : sound.shape[1]], sound)


def test_the_softer_velocity_is_the_softer_sound(data: NotesDataset) -> None:
    note = data.held_out[0]
    soft, loud = (data.sound(note._replace(velocity=v)).abs().max() for v in (60, 110))
    assert soft < 0.7 * loud


def test_augmentation_changes_the_crop_and_not_the_choice(data: NotesDataset) -> None:
    turned = opened(augment=Augment(gain=0, polarity=1, phase=0, swap=0))
    assert torch.equal(turned.train_batch(0, 0, range(3)).x, -data.train_batch(0, 0, range(3)).x)


def test_mono_is_the_mean_of_the_two_channels() -> None:
    stereo, mono = (open_notes(SMALL, sample_rate=44_100, channels=channels) for channels in (2, 1))
    note = stereo.held_out[0]
    both, one = stereo.sound(note).mean(0), mono.sound(note)[0]
    n = min(len(both), len(one))
    scale = one.abs().max() / both.abs().max()  # each is brought to its own peak
    assert (both[:n] * scale - one[:n]).abs().max() < 2e-4


def test_the_fingerprint_tells_what_the_items_depend_on(data: NotesDataset) -> None:
    assert data.fingerprint == opened().fingerprint
    changes = [
        {"velocities": (60,)},
        {"valid_share": 0.1},
        {"segment_seconds": 0.2},
        {"augment": Augment()},
    ]
    prints = {opened(**change).fingerprint for change in changes}
    assert len(prints | {data.fingerprint}) == 5


def test_the_description_counts(data: NotesDataset) -> None:
    text = data.describe()
    assert f"{len(data.notes.table)} single notes" in text
    assert "of 3 programs, pitches 57 to 69, from TimGM6mb.sf2" in text
    assert f"{len(data.held_rows)} held out" in text


def test_a_note_outside_the_set_is_refused(data: NotesDataset) -> None:
    with pytest.raises(DataError, match="program 24, pitch 20, velocity 60 is not in this set"):
        data.sound(Note(24, 20, 60, ""))


def test_one_pair_alone_cannot_be_split() -> None:
    with pytest.raises(DataError, match=r"2 note\(s\) of one program and pitch cannot be split"):
        opened(programs=(24, 24), pitches=(60, 60))


def test_more_than_two_channels_are_refused() -> None:
    with pytest.raises(DataError, match="mono or stereo, got channels=3"):
        open_notes(SMALL, sample_rate=RATE, channels=3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"programs": (9, 3)}, "programs is first and last, got 9 after 3"),
        ({"pitches": (36, 128)}, "pitches.1: input should be less than or equal to 127, got 128"),
        ({"velocities": (60, 60)}, "velocities holds one twice"),
        ({"velocities": ()}, "velocities"),
        ({"pitch": (1, 2)}, "pitch is not a setting; did you mean 'pitches'"),
    ],
)
def test_settings_that_cannot_be_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(NotesData, values)


def test_settings_that_came_later_are_no_part_of_a_fingerprint_while_they_are_at_rest() -> None:
    """So that runs of an older audiovae can be resumed: this is the text that it hashed."""
    before = (
        '{"segment_seconds":0.375,"kind":"notes","programs":[0,119],"pitches":[36,84],"velocities":[60,110],'
        '"hold_seconds":1.25,"release_seconds":0.5,"valid_share":0.05,"valid_seconds":1.5,"valid_crops":64,'
        '"augment":{"gain":0.5,"gain_db":6.0,"polarity":0.0,"phase":0.0,"swap":0.0}}'
    )
    assert shape_json(NotesData(valid_crops=64), {"soundfont"}) == before
    louder = NotesData(augment={"loudness_lufs": -16.0})
    assert shape_json(louder, {"soundfont"}) != before
