"""A sound of any length passes in constant memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import torch

import audiovae
from audiovae.api.opening import Source
from audiovae.api.passage import reconstructed
from audiovae.audio.io import BlockWriter


def test_output_begins_long_before_the_input_ends(mono_folder: Path) -> None:
    taken = 0

    def endless() -> Iterator[torch.Tensor]:
        nonlocal taken
        while True:
            taken += 1
            yield torch.zeros(2, 4_000)

    with torch.no_grad():
        blocks = reconstructed(
            audiovae.load(mono_folder), Source(22_050, 2, 10**9, endless), per_channel=True
        )
        given = sum(block.shape[1] for block in islice(blocks, 40))
    assert 0 < taken * 4_000 / 2 - given < 100_000  # two channels read the source each


PROGRAM = """
import resource, sys, torch, audiovae
torch.set_num_threads(1)
audiovae.reconstruct(*sys.argv[1:], force=True)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_an_hour_takes_the_memory_of_a_minute(mono_folder: Path, tmp_path: Path) -> None:
    peaks = []
    for minutes in (1, 60):
        with BlockWriter(tmp_path / f"{minutes}.wav", 8_000, 1, subtype="PCM_16") as writer:
            for second in range(minutes):
                generator = torch.Generator().manual_seed(second)
                writer.write(0.1 * torch.randn(1, 60 * 8_000, generator=generator))
        command = [sys.executable, "-c", PROGRAM, str(mono_folder)]
        command += [str(tmp_path / f"{minutes}.wav"), str(tmp_path / "out.wav")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))  # KiB
    # an hour at the model's 16 kHz is 225 MiB as float32
    assert peaks[1] - peaks[0] < 40 * 1024
