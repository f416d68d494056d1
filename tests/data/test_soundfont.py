"""Rendered notes are what the renderer gives, stored small; the cache is whole, shared and rendered once."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from pathlib import Path

import numpy as np
import pytest
import tinysoundfont

from audiovae.data import soundfont
from audiovae.data.soundfont import PEAK, RenderedNotes, Rendering, default_soundfont, rendered
from audiovae.errors import DataError, MissingPackageError, OutputError
from audiovae.paths import CACHE_VARIABLE, cache_folder

SETTINGS = Rendering(
    programs=(48, 24, 80),  # strings whose timbre moves with velocity, a guitar, a square wave
    pitches=(57, 69),
    velocities=(60, 110),
    hold_seconds=0.3,
    seconds=0.5,
    sample_rate=44_100,
    channels=2,
)


@pytest.fixture(scope="module")
def notes() -> RenderedNotes:
    return rendered(default_soundfont(), SETTINGS)


def changed(**values: object) -> Rendering:
    return SETTINGS.model_copy(update=values)


def straight(program: int, pitch: int, velocity: int) -> np.ndarray:
    """The same note from a fresh synthesiser, [2, T], before its fade."""
    synth = tinysoundfont.Synth(gain=0, samplerate=44_100)
    synth.program_select(0, synth.sfload(str(default_soundfont())), 0, program)
    synth.noteon(0, pitch, velocity)
    held = np.frombuffer(bytes(synth.generate(13_230)), np.float32)
    synth.noteoff(0, pitch)
    released = np.frombuffer(bytes(synth.generate(8_820)), np.float32)
    return np.concatenate([held, released]).reshape(-1, 2).T


def row_of(notes: RenderedNotes, program: int, pitch: int, velocity: int) -> int:
    return [tuple(note)[:3] for note in notes.table].index((program, pitch, velocity))


@pytest.mark.parametrize("program", SETTINGS.programs)
@pytest.mark.parametrize("velocity", SETTINGS.velocities)
def test_a_stored_note_is_the_renderers_own_times_one_gain(
    notes: RenderedNotes, program: int, velocity: int
) -> None:
    stored = notes.note(row_of(notes, program, 57, velocity), channels=2)
    loudest = max(np.abs(straight(program, 57, v)).max() for v in SETTINGS.velocities)
    wanted = straight(program, 57, velocity) * PEAK / loudest
    before_fade = 44_100 // 2 - round(soundfont.FADE_SECONDS * 44_100)
    frames = min(stored.shape[1], before_fade)
    assert np.abs(stored - wanted[:, : stored.shape[1]])[:, :frames].max() < 2**-15 + 1e-4 * PEAK
    assert np.abs(wanted[:, stored.shape[1] : before_fade]).max(initial=0) <= 1e-4


def test_the_loudest_velocity_of_every_pitch_peaks_at_minus_3_db(notes: RenderedNotes) -> None:
    peaks = {
        tuple(note)[:3]: np.abs(notes.note(row, channels=2)).max()
        for row, note in enumerate(notes.table)
    }
    for (program, pitch, velocity), peak in peaks.items():
        if velocity == 110:
            assert peak == pytest.approx(PEAK, abs=2**-15)
            assert peaks[program, pitch, 60] < 0.7 * peak


def test_velocities_that_are_one_sound_are_stored_once(notes: RenderedNotes) -> None:
    starts = {tuple(note)[:3]: note["start"] for note in notes.table}
    assert starts[80, 57, 60] == starts[80, 57, 110]
    assert starts[48, 57, 60] != starts[48, 57, 110]
    assert notes.table["channels"].min() == 1  # and so are equal channels


@pytest.mark.parametrize("sample_rate", [8_000, 24_000, 44_100, 48_000])
def test_the_pitch_is_right_at_every_rate(sample_rate: int) -> None:
    notes = rendered(
        default_soundfont(), changed(programs=(80,), sample_rate=sample_rate, channels=1)
    )
    sound = notes.note(row_of(notes, 80, 69, 110), channels=1)[0]
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 8 * sample_rate))
    assert np.argmax(spectrum) / 8 == pytest.approx(440, rel=0.005)


def test_below_the_renderers_rate_nothing_aliases() -> None:
    both = [
        rendered(default_soundfont(), changed(programs=(80,), sample_rate=rate, channels=1))
        for rate in (12_000, 48_000)
    ]
    low, high = (notes.note(row_of(notes, 80, 69, 110), 1)[0] for notes in both)
    # The spectrum at 12 kHz is that at 48 kHz up to 5 kHz: what lies above has not been folded down.
    n = min(len(low), len(high) // 4)
    spectra = [
        np.abs(np.fft.rfft(x * np.hanning(len(x))))[: n // 12 * 5] for x in (low[:n], high[: 4 * n])
    ]
    ours, theirs = spectra[0] / spectra[0].max(), spectra[1] / spectra[1].max()
    assert np.abs(ours - theirs).max() < 1e-3


def test_silent_notes_are_dropped_and_listed() -> None:
    notes = rendered(default_soundfont(), changed(programs=(67,), pitches=(79, 84)))
    assert notes.about["silent"] == [[67, 84, 60], [67, 84, 110]]
    assert notes.table["pitch"].tolist() == [79, 79]


def test_a_soundfont_without_a_sounding_note_is_refused() -> None:
    with pytest.raises(DataError, match=r"no note of .*TimGM6mb.sf2 sounds in programs \(67,\)"):
        rendered(default_soundfont(), changed(programs=(67,), pitches=(84,)))


def test_rendering_happens_once_and_again_only_for_other_settings(
    notes: RenderedNotes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    again = rendered(default_soundfont(), SETTINGS)
    assert "rendering" not in capsys.readouterr().err
    assert np.array_equal(again.samples, notes.samples)
    rendered(default_soundfont(), changed(pitches=(60,)))
    assert "rendering 6 notes from TimGM6mb.sf2 (once)" in capsys.readouterr().err


def test_two_renderings_are_equal_to_the_bit(
    notes: RenderedNotes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    other = rendered(default_soundfont(), SETTINGS)
    assert other.about == notes.about
    assert other.about["sha256"] == hashlib.sha256(notes.samples.tobytes()).hexdigest()
    assert np.array_equal(other.table, notes.table)


def test_an_interrupted_rendering_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    play = soundfont._Synth.play

    def interrupted(self: soundfont._Synth, program: int, pitch: int, velocity: int) -> np.ndarray:
        if program == 24:
            raise KeyboardInterrupt
        return play(self, program, pitch, velocity)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(soundfont._Synth, "play", interrupted)
        rendered(default_soundfont(), SETTINGS)
    assert list((tmp_path / "notes").iterdir()) == []
    assert len(rendered(default_soundfont(), SETTINGS).table) == 12


def test_a_process_that_was_second_uses_what_the_first_rendered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    render, inside = soundfont._render, []

    def render_while_another_does(folder: Path, font: Path, settings: Rendering) -> None:
        if not inside:
            inside.append(True)
            rendered(font, settings)
        render(folder, font, settings)

    monkeypatch.setattr(soundfont, "_render", render_while_another_does)
    assert len(rendered(default_soundfont(), SETTINGS).table) == 12
    assert len(list((tmp_path / "notes").iterdir())) == 1


def test_what_a_killed_process_left_is_removed_after_an_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    old, new = (cache_folder("notes", f".unfinished-{name}") for name in ("old", "new"))
    two_hours_ago = time.time() - 7200
    os.utime(old, (two_hours_ago, two_hours_ago))
    rendered(default_soundfont(), changed(programs=(80,)))
    assert not old.exists()
    assert new.exists()


@pytest.mark.parametrize("name", ["samples.i16", "about.json"])
def test_a_set_that_was_cut_short_is_rendered_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    whole = np.array(rendered(default_soundfont(), changed(programs=(80,))).samples)
    [folder] = (tmp_path / "notes").iterdir()
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    again = rendered(default_soundfont(), changed(programs=(80,)))
    assert np.array_equal(again.samples, whole)


def test_a_full_disk_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(soundfont, "_render", full)
    with pytest.raises(OutputError, match=r"No space left .*free some space, set AUDIOVAE_CACHE"):
        rendered(default_soundfont(), SETTINGS)
    assert list((tmp_path / "notes").iterdir()) == []


def test_files_that_are_no_soundfont_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.sf2").write_text("not a SoundFont")
    with pytest.raises(DataError, match=r"text.sf2 is not a SoundFont that can be read"):
        rendered(tmp_path / "text.sf2", SETTINGS)
    with pytest.raises(DataError, match=r"no SoundFont file .*gone.sf2; name an .sf2 or .sf3"):
        rendered(tmp_path / "gone.sf2", SETTINGS)


def test_a_missing_renderer_says_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise soundfont.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(soundfont.importlib.metadata, "version", missing)
    with pytest.raises(MissingPackageError, match="`pip install --no-deps tinysoundfont`"):
        rendered(default_soundfont(), SETTINGS)


def test_a_missing_soundfont_package_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soundfont.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match="`pip install pretty_midi`, or name a SoundFont"):
        default_soundfont()
