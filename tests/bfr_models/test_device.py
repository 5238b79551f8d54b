"""How a process gets ready to run networks on its CPU."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, threading
import torch
from bfr_models.device import keep_freed_memory

def page_faults():
    for _ in range(24):
        [torch.ones(size * 2**20) for size in range(1, 8)]  # 112 MiB in all
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    [torch.ones(size * 2**20) for size in range(1, 8)]
    print(resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before)

keep_freed_memory()
torch.set_num_threads(1)
thread = threading.Thread(target=page_faults)
thread.start()
thread.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_tensors_take_the_memory_of_those_before_them() -> None:
    """In any thread, and without the system, which would clear its 28,000 pages one by one."""
    done = subprocess.run([sys.executable, "-c", FAULTS], check=True, capture_output=True, text=True)
    assert int(done.stdout) <= 100
