"""What every test runs under: one thread a process, and a cache folder of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

torch.set_num_threads(1)  # the processes of `pytest -n` share the cores; sums stay the same too


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is read from or left in the cache of the person who runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUDIOVAE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
