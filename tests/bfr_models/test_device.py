"""How a process gets ready to run networks on its CPU."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, threading
import torch
from bfr_models.device import keep_freed_memory

def page_faults():
    for _ in range(24):
        [torch.ones(size * 2**20) for size in range(1, 9)]  # 144 MiB in all
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    [torch.ones(size * 2**20) for size in range(1, 9)]
    print(resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before)

if sys.argv[1] == "kept":
    keep_freed_memory()
torch.set_num_threads(1)
thread = threading.Thread(target=page_faults)
thread.start()
thread.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
@pytest.mark.parametrize(("way", "fewest", "most"), [("by default", 2000, 40000), ("kept", 0, 100)])
def test_tensors_take_the_memory_of_those_before_them(way: str, fewest: int, most: int) -> None:
    """In any thread, and without the system, which would clear it page by page."""
    command = [sys.executable, "-c", FAULTS, way]
    faults = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert fewest <= faults <= most
