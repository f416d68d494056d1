"""Configs are frozen pydantic models: what they hold is checked once, unknown keys are refused by name.

TOML is what people write, JSON is what a run saves; both parse to the same classes through `parse`.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from audiovae.errors import ConfigError, did_you_mean


class Config(BaseModel):
    """Base of every config: frozen, unknown keys forbidden, defaults checked like given values."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, protected_namespaces=()
    )

    def to_json(self) -> str:
        """Return the whole config as indented JSON; `parse` reads it back to an equal config."""
        return self.model_dump_json(indent=1) + "\n"


Parsed = TypeVar("Parsed")


def parse(kind: type[Parsed] | Any, values: Any, where: str = "") -> Parsed:
    """Check values against a config class (or a union of them) and return the config.

    Raises ConfigError that names each wrong key, the value it got and what is expected.
    `where` is the prefix of the keys in the message, such as "model".
    """
    try:
        parsed: Parsed = TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(kind, e, where) for e in error.errors())) from None
    return parsed


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file of settings.  Raises ConfigError with the line where it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the settings in {path}: {error}") from None
    return parse_toml(text, str(path))


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Settings written in TOML.  Raises ConfigError with the line where it cannot be read."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"cannot read the settings in {where}: {error}") from None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that a run or a model folder saved."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path} holds {type(values).__name__}, an object was expected")
    return dict(values)


def _explain(kind: Any, error: Any, where: str) -> str:
    """One pydantic error as "key: what, got value"."""
    keys, known = _walk(kind, error["loc"])
    key = ".".join([where, *keys] if where else keys) or "settings"
    if error["type"] == "extra_forbidden":
        return f"{key} is not a setting{did_you_mean(keys[-1], known) if known else ''}"
    if error["type"] == "missing":
        return f"{key} is missing"
    if (
        error["type"] == "value_error"
    ):  # of several settings together; the input would be all of them
        return f"{key}: {error['ctx']['error']}"
    got = error.get("input")
    return f"{key}: {error['msg'][0].lower() + error['msg'][1:]}, got {got!r}"


def _walk(kind: Any, place: Iterable[int | str]) -> tuple[list[str], list[str]]:
    """A place in nested settings as the user wrote it, without the tags of unions; the names that may stand last."""
    keys: list[str] = []
    known: list[str] = []
    for key in map(str, place):
        if key in (members := _members(kind)):
            kind = members[key]
            continue
        fields = getattr(kind, "model_fields", {})
        keys, known = [*keys, key], list(fields)
        kind = fields[key].annotation if key in fields else None
    return keys, known


def _members(kind: Any) -> dict[str, Any]:
    """The classes of a union by their tags; none if it is not a tagged union."""
    members: dict[str, Any] = {}
    for member in get_args(kind):
        fields = getattr(member, "model_fields", {})
        members |= {fields["kind"].default: member} if "kind" in fields else _members(member)
    return members
