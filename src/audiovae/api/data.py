"""Verbs on data: what is in a folder, and what of it can be trained on."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from audiovae.audio.io import expect_free
from audiovae.audio.opening import shown
from audiovae.data.manifest import Manifest, expect_usable, write_manifest
from audiovae.data.scan import MINIMUM_SECONDS, SILENCE_DB, scan_folder
from audiovae.errors import DataError
from audiovae.paths import cache_folder

LISTED = 20  # files that are named on a screen; the manifest names all


class Scan(NamedTuple):
    """What a scan found, and the file that says it."""

    manifest: Manifest
    path: Path

    def describe(self) -> str:
        """The counts, the first files that are left out with their reasons, where the rest is."""
        left_out = self.manifest.left_out
        lines = [f"  {shown(e.path)}: {e.verdict}: {e.reason}" for e in left_out[:LISTED]]
        if len(left_out) > LISTED:
            lines.append(f"  and {len(left_out) - LISTED} more")
        return "\n".join([self.manifest.describe(), *lines, f"manifest: {shown(self.path)}"])


def scan(
    folder: str | Path,
    *,
    valid: str | Path | None = None,
    out: str | Path | None = None,
    minimum_seconds: float = MINIMUM_SECONDS,
    silence_db: float = SILENCE_DB,
    force: bool = False,
    quiet: bool = False,
) -> Scan:
    """Listen to every file below a folder and say which can be trained on, and why others cannot.

    folder: where the sounds are, at any depth.
    valid: a folder to validate on; without it about a tenth of `folder` is set aside.
    out: a file for the manifest, one line of JSON a file; without it one in the cache.
    minimum_seconds: shorter files are left out.
    silence_db: files that are never louder, in dB of full scale, are left out.
    force: replace `out` if it exists.
    quiet: show no progress.

    Training scans by itself; files that did not change since are not read again.
    Raises DataError if no file can be used (the manifest is written before that), OutputError if
    `out` exists or cannot be written.
    """
    path = _manifest_path(str(folder)) if out is None else Path(out)
    expect_free(path, force=force or out is None)
    manifest = scan_folder(
        str(folder),
        valid=None if valid is None else str(valid),
        minimum_seconds=minimum_seconds,
        silence_db=silence_db,
        quiet=quiet,
    )
    write_manifest(manifest, path)
    try:
        expect_usable(manifest)
    except DataError as error:
        raise DataError(f"{error}; every reason is in {shown(path)}") from None
    return Scan(manifest, path)


def _manifest_path(folder: str) -> Path:
    """The place in the cache for a folder's manifest."""
    real = os.path.realpath(folder)
    digest = hashlib.sha256(os.fsencode(real)).hexdigest()[:8]
    return cache_folder("manifests") / f"{os.path.basename(real)[:64]}-{digest}.jsonl"
