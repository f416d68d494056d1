"""Pure functions on sound: files, rates, levels, transforms."""

from __future__ import annotations

from audiovae.audio.io import Sound, SoundInfo

__all__ = ["Sound", "SoundInfo"]
