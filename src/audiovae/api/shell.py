"""How the command line reads a parameter that takes more in Python.

Python gives a verb models, arrays and paths; a shell has only words. These notes stand beside a parameter's type, as
`Annotated[type, note]`, and say what word it wants there, so that one signature serves both. (Nothing heavy is
imported here: the command line reads the notes before it knows whether it needs torch.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from audiovae.config import Config


class Shell(NamedTuple):
    """What a parameter is on the command line."""

    type: Any  # of the word; None leaves the parameter out
    help: str = ""  # one line
    required: bool = False  # although Python has a default


class Fields(NamedTuple):
    """Says of `**settings` that they are the fields of a config: the command line lists them."""

    config: type[Config]


class Choice(str):
    """A name, and maybe options: the word that `--model NAME --model.size 2` becomes."""
