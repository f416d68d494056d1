"""Fetch the music of the quality benchmarks: two soundtracks from Debian's archive, about five hours, 44.1 kHz stereo.

    python benchmarks/_music.py [FOLDER]      prints the folder

Needs apt-get and dpkg (Debian, Ubuntu); root is not needed. wesnoth-1.16-music is GPL-2+, planetblupi-music-ogg GPL-3+:
good for measuring, not for weights that are shipped under other terms.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from audiovae.paths import cache_folder

PACKAGES = ("wesnoth-1.16-music", "planetblupi-music-ogg")


def fetch(folder: Path | None = None) -> Path:
    """Return the folder with both soundtracks, fetched on the first call."""
    folder = folder or cache_folder() / "benchmark-music"
    for package in PACKAGES:
        if (folder / package).is_dir():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            unpacked = Path(temporary) / package
            subprocess.run(["apt-get", "download", "-q", package], cwd=temporary, check=True)
            (archive,) = Path(temporary).glob("*.deb")
            subprocess.run(["dpkg", "-x", archive, unpacked], check=True)
            unpacked.rename(folder / package)
    return folder


if __name__ == "__main__":
    print(fetch(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
