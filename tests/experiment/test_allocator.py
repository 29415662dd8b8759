"""Freed memory is retained where the C library has a setting for it."""

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
from diffexp.experiment.allocator import retain_freed_heap
if {kept}:
    retain_freed_heap()
for turn in range(12):
    if turn == 2:  # by then all that is needed is there
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [bytearray(20 << 20) for _ in range(4)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(kept: bool, **environment: str) -> int:
    """Pages that the system had to clear while blocks of 20 MiB came and went."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
    words = [sys.executable, "-c", FAULTS.format(kept=kept)]
    done = subprocess.run(words, env=clean | environment, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_kept():
    assert faults(kept=True) < 100 < 10000 < faults(kept=False)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_what_the_user_has_set_stays():
    assert faults(kept=True, MALLOC_MMAP_THRESHOLD_="131072") > 10000
