"""Variational autoencoders for audio: from a folder of recordings to a trained model, and back to sound.

    import audiovae
    model = audiovae.load("runs/piano")
    latent = audiovae.encode(model, "a.wav")
    audiovae.decode(model, latent, "b.wav")

Importing the package imports nothing heavy: the names below load with their first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from audiovae.api.coding import decode, encode, reconstruct
    from audiovae.api.data import scan
    from audiovae.api.demo import demo
    from audiovae.api.evaluation import diagnose, info
    from audiovae.api.exchange import export, import_checkpoint
    from audiovae.api.generation import interpolate, sample
    from audiovae.api.tokens import tokenise
    from audiovae.api.training import train
    from audiovae.audio.io import Sound
    from audiovae.checkpoint import load
    from audiovae.models import Autoencoder

__version__ = "0.1.0"

# The verbs, in the order of a first session: (words on the command line, module, what it does).
# A line here is all that a new verb needs to be a Python name and a command; `python_name` says which name.
VERBS = {
    "demo": (
        "audiovae.api.demo",
        "Train on instrument notes for minutes and write a page to listen to.",
    ),
    "data scan": (
        "audiovae.api.data",
        "Listen to every file below a folder and say which can be trained on, and why others cannot.",
    ),
    "tokenise": (
        "audiovae.api.tokens",
        "Write the codes of every sound in a folder, for a token model to learn from.",
    ),
    "train": ("audiovae.api.training", "Train a model on a folder of sounds or on built-in data."),
    "info": ("audiovae.api.evaluation", "Say what a model or a preset is, in numbers."),
    "encode": ("audiovae.api.coding", "Turn a sound into a latent."),
    "decode": ("audiovae.api.coding", "Turn a latent back into a sound."),
    "reconstruct": (
        "audiovae.api.coding",
        "Send a sound, or a folder of sounds, through a model and back.",
    ),
    "sample": ("audiovae.api.generation", "Draw new sounds from a model's prior."),
    "interpolate": (
        "audiovae.api.generation",
        "Walk from one sound to another through the latent space.",
    ),
    "diagnose": (
        "audiovae.api.evaluation",
        "Measure what each latent dimension carries on some data.",
    ),
    "import": (
        "audiovae.api.exchange",
        "Make a model folder of a checkpoint that another toolkit wrote.",
    ),
    "export": (
        "audiovae.api.exchange",
        "Write a model as a folder to give away: for audiovae, or for another toolkit.",
    ),
}


def python_name(words: str) -> str:
    """The Python name of a verb: its last word; `import`, which is Python's own, is `import_checkpoint`."""
    return {"import": "import_checkpoint"}.get(words, words.split()[-1])


_MODULES = {python_name(words): module for words, (module, _) in VERBS.items()} | {
    "load": "audiovae.checkpoint",
    "Autoencoder": "audiovae.models",
    "Sound": "audiovae.audio.io",
}

__all__ = [
    "Autoencoder",
    "Sound",
    "decode",
    "demo",
    "diagnose",
    "encode",
    "export",
    "import_checkpoint",
    "info",
    "interpolate",
    "load",
    "reconstruct",
    "sample",
    "scan",
    "tokenise",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'audiovae' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
