"""Every sound of a folder through one piece of work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from audiovae.audio.io import FORMATS, shown
from audiovae.errors import AudioError
from audiovae.progress import progress


def sounds_in(folder: Path) -> list[Path]:
    """The sound files below a folder, in the order of their names.  Raises AudioError if there is none."""
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in FORMATS and p.is_file())
    if not files:
        raise AudioError(f"there is no sound in {shown(folder)}; {', '.join(FORMATS)} are read")
    return files


def for_each(files: Sequence[Path], title: str, work: Callable[[Path], object]) -> None:
    """Work through files, on a terminal with a bar under a title.

    What cannot be used is named at the end in an AudioError; the rest is done.
    """
    refused = []
    for file in progress(files, title):
        try:
            work(file)
        except AudioError as error:
            refused.append(str(error))
    if refused:
        raise AudioError(
            f"{len(refused)} of {len(files)} files could not be used: " + "; ".join(refused)
        )
