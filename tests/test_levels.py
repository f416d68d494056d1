"""Who may import whom, read from the source text (nothing is imported to find out).

A file imports from the levels below its own or from its own room; rooms of one level do not know each other.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import audiovae

SOURCE = Path(audiovae.__file__).parent
LEVELS = [
    {"errors"},
    {"config", "memory", "paths", "progress"},
    {"audio", "nn"},
    {"bottlenecks", "losses", "data", "latents", "recipes"},
    {"models"},
    {"evaluation"},
    {"checkpoint"},
    {"streaming", "padded", "interop", "training"},
    {"api"},
    {"cli"},
    {"__main__"},
]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
LAZY = {"__init__.py", "cli.py"}  # load what they name with its first use
OPTIONAL = {
    *("auraloss", "diffusers", "librosa", "transformers"),  # interop
    *("matplotlib", "pretty_midi", "tinysoundfont", "torch.utils.tensorboard"),  # plot, data, train
    *("pesq", "pystoi", "visqol", "zimtohrli"),  # perceptual
}


class Import(NamedTuple):
    """One import of one of our modules."""

    module: str  # the file that imports, "audiovae.models.base"
    target: str  # what it imports
    line: int

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    names = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports(name: str, path: Path, known: set[str]) -> Iterator[Import]:
    """The imports of our own modules in a file, those for the type checker included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} is a relative import"
            base = node.module or ""
            wanted = [
                f"{base}.{a.name}" if f"{base}.{a.name}" in known else base for a in node.names
            ]
        else:
            continue
        for target in wanted:
            if target.split(".")[0] == "audiovae":
                yield Import(name, target, node.lineno)


def room(module: str) -> str:
    """The room of a module: "audiovae.models.base" -> "models"."""
    return module.split(".")[1] if "." in module else ""


ALL = modules()
EDGES = [edge for name, path in ALL.items() for edge in imports(name, path, set(ALL))]


def test_every_room_has_a_level() -> None:
    assert {room(name) for name in ALL if room(name)} <= set(LEVEL)


def test_imports_go_downwards_or_stay_in_their_room() -> None:
    for edge in EDGES:
        source, target = room(edge.module), room(edge.target)
        if source and target and source != target:
            assert LEVEL[target] < LEVEL[source], str(edge)


def test_no_module_imports_itself_through_others() -> None:
    below: dict[str, set[str]] = {name: set() for name in ALL}
    for edge in EDGES:
        if edge.target in ALL and edge.target != edge.module and room(edge.module):
            below[edge.module].add(edge.target)
    while leaves := [name for name, targets in below.items() if not targets & set(below)]:
        for name in leaves:
            del below[name]
    assert not below, f"import cycles among {sorted(below)}"


def test_no_star_imports_and_no_imports_hidden_in_functions() -> None:
    for path in ALL.values():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                assert all(alias.name != "*" for alias in node.names), f"{path}:{node.lineno}"
        if path.relative_to(SOURCE).as_posix() in LAZY:
            continue
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    whole = ast.unparse(node).split()[1]
                    allowed = whole in OPTIONAL or whole.split(".")[0] in OPTIONAL
                    assert allowed, f"{path}:{node.lineno} imports {whole} in a function"
