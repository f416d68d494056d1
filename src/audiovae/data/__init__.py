"""Where training sound comes from: folders, rendered notes, made-up tones -> x [B, C, T]."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from audiovae.data.base import Batch, Dataset, DataSettings
from audiovae.data.folder import FolderData, open_folder
from audiovae.data.notes import NotesData, open_notes
from audiovae.data.synth import SynthData, open_synth

DATA: dict[str, type[DataSettings]] = {
    "folder": FolderData,
    "notes": NotesData,
    "synth": SynthData,
}
OPEN: dict[type[DataSettings], Any] = {
    FolderData: open_folder,
    NotesData: open_notes,
    SynthData: open_synth,
}
DataConfig = Annotated[FolderData | NotesData | SynthData, Field(discriminator="kind")]

__all__ = [
    "Batch",
    "DATA",
    "DataConfig",
    "DataSettings",
    "Dataset",
    "FolderData",
    "NotesData",
    "SynthData",
    "open_dataset",
]


def open_dataset(
    config: DataSettings, *, sample_rate: int, channels: int, multiple_of: int = 1
) -> Dataset:
    """Open the data that a config names, for a model of this rate (Hz), width and hop.

    Crops have `segment_seconds` of samples, rounded up to a multiple of `multiple_of`.
    Raises DataError if there is nothing to train on or nothing to validate on.
    """
    dataset: Dataset = OPEN[type(config)](
        config, sample_rate=sample_rate, channels=channels, multiple_of=multiple_of
    )
    return dataset
