"""What a process of our own tells the memory allocator of its C library."""

import ctypes
import os

# <malloc.h>
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory() -> None:
    """Let glibc keep the memory that tensors free; other C libraries are left as they are.

    By default it hands large blocks back to the system, which clears them again, page by page, for the next layer of
    the network: 15 to 30 % of the time of a small network on a CPU. What the user has set in ``MALLOC_*_`` stays.
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
