"""Freed memory that stays: the second use of a block costs no page faults."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, torch
from audiovae.memory import keep_freed_memory
keep = {keep} and keep_freed_memory()
def work():
    x = torch.ones(16_000_000)  # 64 MB: above the 32 MB up to which glibc adapts by itself
    return x * 2
for _ in range(8):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    work()
print(keep, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the setting is glibc's")
def test_freed_blocks_are_used_again():
    def faults(keep: bool) -> int:
        run = [sys.executable, "-c", PROGRAM.format(keep=keep)]
        taken, count = subprocess.run(
            run, capture_output=True, text=True, check=True
        ).stdout.split()
        assert taken == str(keep)
        return int(count)

    assert faults(keep=True) < faults(keep=False) / 4
