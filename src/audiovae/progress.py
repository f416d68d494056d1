"""A bar while long work goes on, for those who watch."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")
log = logging.getLogger("audiovae")


def progress(
    items: Iterable[T],
    title: str,
    *,
    total: int | None = None,
    say: bool = False,
    quiet: bool = False,
    console: Console | None = None,
) -> Iterator[T]:
    """Give the items one by one, with a bar on standard error if that is a terminal and nobody asked for quiet.

    `total` says how many come where they cannot be counted. With `say` the title is printed as a line where there is
    no terminal.
    """
    console = console or Console(stderr=True)
    if quiet or not log.isEnabledFor(logging.WARNING):  # --quiet
        yield from items
    elif console.is_terminal:
        yield from track(items, title, total, console=console, transient=True)
    else:
        if say:
            console.print(title, highlight=False, soft_wrap=True)
        yield from items
