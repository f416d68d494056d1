"""Sounds to token files: what a token model is trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from audiovae.api.codecs import expect_discrete
from audiovae.api.folders import for_each, sounds_in
from audiovae.api.opening import at_work, open_source
from audiovae.api.parameters import AnyModel, Device, Force, Threads
from audiovae.api.passage import coded, mixed_down
from audiovae.api.shell import Shell
from audiovae.audio.io import expect_free
from audiovae.data.tokens import SUFFIX, TokenFile, write_tokens
from audiovae.errors import ConfigError


def tokenise(
    codec: AnyModel,
    sounds: Annotated[str | Path, Shell(Path, "The folder with the sounds.")],
    out: Annotated[str | Path, Shell(Path, "The folder for the token files.")],
    *,
    force: Force = False,
    device: Device = "auto",
    threads: Threads = None,
) -> Path:
    """Write the codes of every sound in a folder, for a token model to learn from.

    The codec is any saved model with one level of codes; each file remembers which. Stereo is mixed down
    for a mono codec. What cannot be used is named at the
    end, the rest is done.
    """
    folder, target = Path(sounds), Path(out)
    files = sounds_in(folder)
    expect_free(target, force=force)
    with at_work(codec, device, threads) as opened:
        expect_discrete(opened, "the codec")
        if (model_hash := opened.model_hash) is None:
            raise ConfigError(
                "the codec was never saved, so its tokens could not name it; save it and load it"
            )
        (sizes,) = opened.codebook_sizes

        def write(file: Path) -> None:
            (codes,) = coded(opened, mixed_down(open_source(file), opened.channels))
            path = target / f"{file.relative_to(folder)}{SUFFIX}"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_tokens(path, TokenFile(codes, sizes, model_hash))

        for_each(files, "tokenise", write)
    return target
