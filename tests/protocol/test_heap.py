"""What the commands ask of the C library: large memory goes back, that of frames stays."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

FRAMES = """
import resource, sys
from pathlib import Path
import numpy as np
from flowerpress.protocol.heap import give_back_freed_memory, give_back_large_memory

def resident():
    return 4096 * int(Path("/proc/self/statm").read_text().split()[1])

def faults(size, count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        bytes(size)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

give_back_large_memory()
faults(2**20, 10)
print(faults(2**20, 1000))
before = resident()
vectors = [np.ones(2**20) for _ in range(8)]
kept = vectors[1::2]
del vectors
print(resident() - before)
holes = [bytes(2**16) for _ in range(1000)]
kept += holes[::2]
del holes
full = resident()
give_back_freed_memory()
print(full - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that is asked")
def test_frames_take_no_new_pages_and_large_vectors_leave() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FRAMES],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env={k: v for k, v in os.environ.items() if k != "MALLOC_MMAP_THRESHOLD_"},
    )
    faults, kept, freed = map(int, done.stdout.split())
    assert faults < 1000  # it was 256 for each of the frames
    assert kept < 5 * 2**23  # four of eight vectors of 8 MiB
    assert freed > 2**24  # half of 62 MiB, less the pages that are shared with what is in use
