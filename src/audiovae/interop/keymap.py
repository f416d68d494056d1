"""Renaming weights by a table, strictly: nothing may be left over, missing or of another shape.

Weight norm, w = g v / |v| for each filter, comes in three spellings: `weight_g` and `weight_v`, the names of torch's
parametrisation, and folded into a plain `weight`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product

import torch
from torch import Tensor

from audiovae.errors import CheckpointError

WEIGHT_NORM = {  # the suffixes of torch's old weight norm, and of its parametrisation
    "weight_g": "parametrizations.weight.original0",
    "weight_v": "parametrizations.weight.original1",
}

Modules = Iterable[tuple[str, str, Iterable[tuple[str, str]]]]  # theirs, ours, their parameters


def spell(
    modules: Modules, *, stages: int = 1, units: int = 1, codebooks: int = 1
) -> dict[str, str]:
    """The names of all parameters of a table of modules, theirs -> ours.

    In the table {i} counts the stages from 0, {j} the units of a stage and {k} the codebooks; {i1} and {j1} count from 1,
    {j2} from 2, and {n1} and {n2} are the numbers after the last stage counted from 1.
    """
    names = {}
    for theirs, ours, parameters in modules:
        counts = (("{i}", stages), ("{j}", units), ("{k}", codebooks))
        for i, j, k in product(*(range(count if place in ours else 1) for place, count in counts)):
            places = {"i": i, "j": j, "k": k, "i1": i + 1, "j1": j + 1, "j2": j + 2}
            places |= {"n1": stages + 1, "n2": stages + 2}
            for their_parameter, our_parameter in parameters:
                name = f"{theirs.format(**places)}.{their_parameter}"
                names[name] = f"{ours.format(**places)}.{our_parameter}"
    return names


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


def fold_weight_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Write every `weight_g` and `weight_v` as the plain `weight` that they make; other keys stay."""
    folded = {}
    for key, weight in state.items():
        if key.endswith(".weight_g"):
            name = key.removesuffix("_g")
            folded[name] = torch._weight_norm(state[name + "_v"], weight)
        elif not key.endswith(".weight_v"):
            folded[key] = weight
    return folded


def unfold_weight_norm(state: Mapping[str, Tensor], wanted: Iterable[str]) -> dict[str, Tensor]:
    """Split each plain `weight` into `weight_g` and `weight_v` where these are wanted; other keys stay."""
    unfolded = dict(state)
    for name in [key.removesuffix("_g") for key in wanted if key.endswith(".weight_g")]:
        if name in unfolded:
            weight = unfolded.pop(name)
            norm = torch.norm_except_dim(weight)
            unfolded[name + "_g"] = norm
            unfolded[name + "_v"] = torch.where(norm == 0, 1.0, weight)  # g v / |v| is 0, not 0 / 0
    return unfolded


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
