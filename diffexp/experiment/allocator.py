"""Settings of the C library's memory allocator for a process of the command line."""

import ctypes
import os

# <malloc.h>
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3


def retain_freed_heap() -> None:
    """Make glibc retain the memory that tensors free; other C libraries are not changed.

    By default glibc returns large blocks to the system, which clears them again, page by page, for the next layer of
    the network: 15 to 30 % of the time of a small network on a CPU. Variables ``MALLOC_*_`` take precedence.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return
    mallopt(M_MMAP_THRESHOLD, 32 << 20)  # the most that it accepts
    mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
    mallopt(M_TOP_PAD, 64 << 20)
