"""What every test runs under: one thread a process, and a cache folder of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

torch.set_num_threads(1)  # the processes of `pytest -n` share the cores; sums stay the same too


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is read from or left in the cache of the person who runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUDIOVAE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def stable_audios_spectral_loss() -> Callable[[Tensor, Tensor, int], Tensor]:
    """(x_hat, x [B, C, T], rate) -> auraloss' parts, added up as stable-audio-tools does.

    Sum and difference, plus half of left and of right; of mono the one channel. It gives auraloss (x, x_hat), though
    that calls them input and target.
    """
    from auraloss.freq import MultiResolutionSTFTLoss, SumAndDifferenceSTFTLoss

    windows = [2048, 1024, 512, 256, 128, 64, 32]

    def loss(x_hat: Tensor, x: Tensor, sample_rate: int) -> Tensor:
        settings = {
            "fft_sizes": windows,
            "hop_sizes": [n // 4 for n in windows],
            "win_lengths": windows,
            "perceptual_weighting": True,
            "sample_rate": sample_rate,
        }
        single = MultiResolutionSTFTLoss(**settings)
        if x.shape[1] == 1:
            return single(x, x_hat)
        sides = [single(x[:, c : c + 1], x_hat[:, c : c + 1]) / 2 for c in (0, 1)]
        return SumAndDifferenceSTFTLoss(**settings)(x, x_hat) + sum(sides)

    return loss
