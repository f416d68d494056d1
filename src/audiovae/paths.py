"""Where audiovae keeps what it can make again, and how a file appears whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkstemp

import platformdirs

from audiovae.errors import OutputError

CACHE_VARIABLE = "AUDIOVAE_CACHE"


def cache_folder(*parts: str) -> Path:
    """Return the cache folder, or a folder below it, made if it is not there.

    It obeys the platform's convention (~/.cache, ~/Library/Caches, %LOCALAPPDATA%) or the
    environment variable AUDIOVAE_CACHE.  Everything in it can be deleted: it is made again.
    Raises OutputError if it cannot be made.
    """
    named = os.environ.get(CACHE_VARIABLE)
    root = Path(named).expanduser() if named else platformdirs.user_cache_path("audiovae", False)
    folder = root.joinpath(*parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the cache folder {folder} ({error.strerror}); "
            f"set {CACHE_VARIABLE} to a folder that can be written"
        ) from None
    return folder


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; it takes the place of `path` at the end.

    A reader sees the old file, the new file or none, never a part of one: after a full disk, SIGKILL
    or a power cut too.
    """
    try:
        handle, name = mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    except OSError as error:  # it should name the file that was wanted
        raise type(error)(error.errno, error.strerror, str(path)) from None
    os.close(handle)
    temporary = Path(name)
    try:
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes it private
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last through a power cut, where the platform can."""
    if os.name == "nt":  # Windows cannot open a folder, and keeps its names by itself
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    """The permission bits that new files of this process do not get."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
