"""Models from and to other toolkits: import, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch

from audiovae.api.parameters import AnyModel, Force
from audiovae.api.shell import Shell
from audiovae.audio.io import expect_free
from audiovae.checkpoint import load, place_files, save_model
from audiovae.interop.formats import FORMATS, read, written
from audiovae.models import Autoencoder, build


def import_checkpoint(
    format: Annotated[str, Shell(str, f"Who wrote it: {', '.join(FORMATS)}.")],
    path: Annotated[
        str | Path, Shell(Path, "The folder that the other toolkit loads, or a checkpoint file.")
    ],
    *,
    out: Annotated[str | Path, Shell(Path, "The model folder to write.")],
    force: Force = False,
) -> Path:
    """Make a model folder of a checkpoint that another toolkit wrote.

    The net is told from its config; each weight must have its place. Pickled files are read without running anything
    of them, and one that would need it is refused. Returns the folder, which is written whole or not at all.
    """
    out = Path(out)
    expect_free(out, force=force)
    config, weights = read(format, Path(path))
    with torch.device("meta"):  # every weight comes from the file
        model = build(config)
    model.load_state_dict(weights, assign=True)
    save_model(out, model, replace=force)
    return out


def export(
    model: AnyModel,
    *,
    format: Annotated[str, Shell(str, "Who shall load it: audiovae, diffusers or transformers.")],
    out: Annotated[str | Path, Shell(Path, "The folder to write.")],
    force: Force = False,
) -> Path:
    """Write a model as a folder to give away: for audiovae, or for another toolkit.

    For audiovae that is the weights and the statistics of the latent, without the state of the training; another
    toolkit's `from_pretrained` gives the same net. Returns the folder, which is written whole or not at all.
    """
    out = Path(out)
    expect_free(out, force=force)
    opened = model if isinstance(model, Autoencoder) else load(model)
    if format == "audiovae":
        save_model(out, opened, statistics=opened.statistics, replace=force)
    else:
        place_files(out, written(format, opened), replace=force)
    return out
