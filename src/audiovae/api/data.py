"""Verbs on data: what is in a folder, and what of it can be trained on."""

from __future__ import annotations

from pathlib import Path

from audiovae.audio.io import expect_free
from audiovae.data.manifest import Manifest, expect_usable, write_manifest
from audiovae.data.scan import MINIMUM_SECONDS, SILENCE_DB, scan_folder


def scan(
    folder: str | Path,
    *,
    valid: str | Path | None = None,
    out: str | Path | None = None,
    minimum_seconds: float = MINIMUM_SECONDS,
    silence_db: float = SILENCE_DB,
    force: bool = False,
    quiet: bool = False,
) -> Manifest:
    """Listen to every file below a folder and say which can be trained on, and why others cannot.

    folder: where the sounds are, at any depth.
    valid: a folder to validate on; without it about a tenth of `folder` is set aside.
    out: a file for the manifest, one line of JSON a file.
    minimum_seconds: shorter files are left out.
    silence_db: files that are never louder, in dB of full scale, are left out.
    force: replace `out` if it exists.
    quiet: show no progress.

    Training scans by itself; files that did not change since are not read again.
    Raises DataError if no file can be used (the manifest is written before that), OutputError if
    `out` exists or cannot be written.
    """
    if out is not None:
        expect_free(Path(out), force=force)
    manifest = scan_folder(
        str(folder),
        valid=None if valid is None else str(valid),
        minimum_seconds=minimum_seconds,
        silence_db=silence_db,
        quiet=quiet,
    )
    if out is not None:
        write_manifest(manifest, out)
    expect_usable(manifest)
    return manifest
