"""How a process gets ready to run networks on its CPU."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from bfr_models.device import multiplies_bf16, precision_on, trains_in_bf16

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


@pytest.mark.parametrize(
    ("flags", "found"), [("fpu amx_bf16 amx_tile", True), ("fpu avx512_bf16", True), ("fpu avx512f avx512_vnni", False)]
)
def test_a_cpu_with_amx_or_instructions_of_avx512_multiplies_bf16_by_itself(
    flags: str, found: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\nbogomips\t: 1\n")
    monkeypatch.setattr("bfr_models.device._CPUINFO", tmp_path / "cpuinfo")
    assert multiplies_bf16.__wrapped__() is found


def test_without_linux_it_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bfr_models.device._CPUINFO", tmp_path / "none")
    assert not multiplies_bf16.__wrapped__()


def test_auto_is_a_matter_of_the_device_and_what_was_asked_for_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bfr_models.device.multiplies_bf16", lambda: True)
    assert [precision_on(device, "auto") for device in ("cpu", "cuda", "cuda:1")] == ["bf16", "fp32", "fp32"]
    assert [precision_on("cpu", asked) for asked in ("fp32", "fp16")] == ["fp32", "fp16"]
    monkeypatch.setattr("bfr_models.device.multiplies_bf16", lambda: False)
    assert precision_on("cpu", "auto") == "fp32"


def test_a_training_is_in_bf16_but_on_cpus_that_do_not_multiply_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for multiplies in (True, False):
        monkeypatch.setattr("bfr_models.device.multiplies_bf16", lambda found=multiplies: found)
        assert [trains_in_bf16(device, "auto") for device in ("cpu", "cuda", "cuda:1")] == [multiplies, True, True]
        assert [trains_in_bf16("cpu", asked) for asked in ("bf16", "fp32")] == [True, False]
