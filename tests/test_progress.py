"""The bar is for a terminal, a line for elsewhere, and nothing for those who asked for quiet."""

from __future__ import annotations

import io
import logging

import pytest
from rich.console import Console

from audiovae.progress import progress


def shown(*, terminal: bool, say: bool) -> str:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=80)
    assert list(progress([1, 2, 3], "working", say=say, console=console)) == [1, 2, 3]
    return text.getvalue()


def test_a_terminal_gets_a_bar_that_goes_away() -> None:
    text = shown(terminal=True, say=False)
    assert "working" in text and "100%" in text
    assert text.endswith("\x1b[2K")  # the line is cleared


def test_elsewhere_there_is_a_line_if_it_was_wanted() -> None:
    assert shown(terminal=False, say=True) == "working\n"
    assert shown(terminal=False, say=False) == ""


@pytest.mark.parametrize("terminal", [True, False])
def test_quiet_is_quiet(terminal: bool) -> None:
    log = logging.getLogger("audiovae")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        assert shown(terminal=terminal, say=True) == ""
    finally:
        log.setLevel(level)
