"""Where training sound comes from: folders, rendered notes, made-up tones -> x [B, C, T]; and tokens -> x [B, K, F]."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from audiovae.data.base import Batch, Dataset, DataSettings
from audiovae.data.folder import FolderData, open_folder
from audiovae.data.notes import NotesData, open_notes
from audiovae.data.synth import SynthData, open_synth
from audiovae.data.token_source import TokenSourceData, open_token_source
from audiovae.data.tokens import TokensData, TokenSettings, TokenSpec, open_token_files
from audiovae.errors import DataError

DATA: dict[str, type[DataSettings]] = {
    "folder": FolderData,
    "notes": NotesData,
    "synth": SynthData,
    "tokens": TokensData,
    "token_source": TokenSourceData,
}
OPEN: dict[type[DataSettings], Any] = {
    FolderData: open_folder,
    NotesData: open_notes,
    SynthData: open_synth,
}
OPEN_TOKENS: dict[type[DataSettings], Any] = {
    TokensData: open_token_files,
    TokenSourceData: open_token_source,
}
DataConfig = Annotated[
    FolderData | NotesData | SynthData | TokensData | TokenSourceData, Field(discriminator="kind")
]

__all__ = [
    "Batch",
    "DATA",
    "DataConfig",
    "DataSettings",
    "Dataset",
    "FolderData",
    "NotesData",
    "SynthData",
    "TokenSettings",
    "TokenSourceData",
    "TokenSpec",
    "TokensData",
    "open_dataset",
    "open_tokens",
]


def open_dataset(
    config: DataSettings, *, sample_rate: int, channels: int, multiple_of: int = 1
) -> Dataset:
    """Open the data that a config names, for a model of this rate (Hz), width and hop.

    Crops have `segment_seconds` of samples, rounded up to a multiple of `multiple_of`.
    Raises DataError if there is nothing to train on or nothing to validate on.
    """
    if type(config) not in OPEN:
        raise DataError(
            "this model learns from sounds, the data are tokens; give it a folder of sounds, notes or synth"
        )
    dataset: Dataset = OPEN[type(config)](
        config, sample_rate=sample_rate, channels=channels, multiple_of=multiple_of
    )
    return dataset


def open_tokens(config: DataSettings, spec: TokenSpec) -> Dataset:
    """Open the data that a config names, for a model of such tokens.

    Raises DataError if they are not tokens, not those of its codec, or if there are none.
    """
    if type(config) not in OPEN_TOKENS:
        raise DataError(
            "this model learns from tokens, the data are sounds; write their codes with `audiovae tokenise` and give "
            "data tokens with their folder as data.path, or give token_source"
        )
    dataset: Dataset = OPEN_TOKENS[type(config)](config, spec)
    return dataset
