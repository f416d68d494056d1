"""Models on disk: folders that are whole or not there, verified by SHA-256, with no code in them."""

from audiovae.checkpoint.folder import FORMAT, Manifest, place_files, remove_temporary, write_folder
from audiovae.checkpoint.model import (
    BUILT_IN,
    MIGRATIONS,
    Migration,
    best_checkpoint,
    checkpoints,
    find,
    load,
    load_weights,
    model_hash,
    save_model,
)

__all__ = [
    "BUILT_IN",
    "FORMAT",
    "MIGRATIONS",
    "Manifest",
    "Migration",
    "best_checkpoint",
    "checkpoints",
    "find",
    "load",
    "load_weights",
    "model_hash",
    "place_files",
    "remove_temporary",
    "save_model",
    "write_folder",
]
