"""Sound files kept open, so that many small parts of them can be read without judging the whole each time.

Only files in which a part does not depend on what was read before it: libsndfile's Vorbis and Opus decoders carry some of
that over a seek, so such a file is opened anew for each part.
"""

from __future__ import annotations

import soundfile
from torch import Tensor

from audiovae.audio.io import expect_channels, next_samples
from audiovae.audio.opening import FilePath, open_sound

KEPT = {"WAV", "WAVEX", "RF64", "AIFF", "FLAC"}  # libsndfile's formats


class SoundPool:
    """Reads parts of files and keeps the files of the last reads open; several threads may share it.

    A file is judged when it is opened.
    """

    def __init__(self, limit: int = 128) -> None:
        self.limit = limit  # files open at once
        self._idle: dict[FilePath, soundfile.SoundFile] = {}  # the last used one at the end

    def read(self, path: FilePath, start: int, frames: int) -> Tensor:
        """Samples start ... start + frames - 1 as float32 [C, frames].  Raises AudioError as `audio.io.read` does."""
        file = self._idle.pop(path, None) or open_sound(path)  # no other thread sees it now
        try:
            expect_channels(path, file.channels)
            x = next_samples(file, path, start, frames, seek=True)
        except BaseException:
            file.close()
            raise
        self._keep(path, file)
        return x

    def close(self) -> None:
        """Close every file; the pool can be used again."""
        while self._idle:
            self._idle.popitem()[1].close()

    def _keep(self, path: FilePath, file: soundfile.SoundFile) -> None:
        if file.format not in KEPT or path in self._idle:  # another thread has read a part of it
            file.close()
            return
        self._idle[path] = file
        while len(self._idle) > self.limit:
            self._idle.pop(next(iter(self._idle))).close()
