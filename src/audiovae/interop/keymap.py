"""Renaming weights by a table, strictly: nothing may be left over, missing or of another shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from audiovae.errors import CheckpointError

WEIGHT_NORM = {  # the suffixes of torch's old weight norm, and of its parametrisation
    "weight_g": "parametrizations.weight.original0",
    "weight_v": "parametrizations.weight.original1",
}


def rename(
    state: Mapping[str, Tensor], names: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """Return the weights under their new names; `names` is old -> new, `shapes` is by new name.

    Raises CheckpointError that lists the first keys that are missing, left over or misshapen.
    """
    _refuse("lack", sorted(names.keys() - state.keys()))
    _refuse("have beside what is known", sorted(state.keys() - names.keys()))
    renamed = {new: state[old] for old, new in names.items()}
    _refuse(
        "have in another shape",
        [
            f"{old} {tuple(state[old].shape)} instead of {shapes[new]}"
            for old, new in names.items()
            if tuple(state[old].shape) != shapes[new]
        ],
    )
    return renamed


def old_weight_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Spell every weight norm the old way, `weight_g` and `weight_v`; other keys stay."""
    back = {new: old for old, new in WEIGHT_NORM.items()}
    return {_respell(key, back): weight for key, weight in state.items()}


def new_weight_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Spell every weight norm the new way, `parametrizations.weight.original0` and `1`."""
    return {_respell(key, WEIGHT_NORM): weight for key, weight in state.items()}


def _respell(key: str, suffixes: Mapping[str, str]) -> str:
    for old, new in suffixes.items():
        if key.endswith("." + old):
            return key.removesuffix(old) + new
    return key


def _refuse(what: str, keys: Iterable[str]) -> None:
    """Raise if there are such keys."""
    keys = list(keys)
    if keys:
        more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
        raise CheckpointError(
            f"the weights {what}: {', '.join(keys[:3])}{more}; "
            "do they belong to a net of this kind and size?"
        )
