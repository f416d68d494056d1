"""Keep freed memory instead of handing it back to the system and fetching it again in the next step.

A training step allocates the same large tensors every time. glibc returns each of them to the system as soon as it is
free, and the system then clears every page anew on first touch, which a small model's step on a CPU feels.
"""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # <malloc.h>
LARGEST = 2**31 - 1  # bytes; the options are C ints


def keep_freed_memory() -> bool:
    """Ask glibc to serve large blocks from the heap and never to shrink it; elsewhere do nothing.

    Returns whether the allocator took both settings. They hold for the process.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # musl has none
        return False
    return all([mallopt(M_MMAP_THRESHOLD, LARGEST), mallopt(M_TRIM_THRESHOLD, LARGEST)])
