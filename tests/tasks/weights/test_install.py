"""One download per machine, however many processes ask and whichever of them dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import weight_server as faults
from tests.weight_server import CONTENT, HALF, SHA256, Server, serving

PROCESS = """
import sys
from bfr_models.weights import catalogue
from bfr_models.weights.catalogue import WeightEntry
from tasks.fetch_weights import fetch_weights

url, size, sha256 = sys.argv[1:]
entry = WeightEntry("lib/net", "", f"{url}/v1/net.pth", int(size), sha256, "L", "https://l", False)
catalogue.CATALOGUE = (entry,)
print(fetch_weights(["lib/net"], lambda _: True)[0]["fetched"])
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BFR_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path


def start_process(server: Server) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROCESS, server.url, str(len(CONTENT)), SHA256]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def assert_whole(cache: Path) -> None:
    assert sorted(os.listdir(cache)) == ["lib-net.json", "lib-net.pth"]
    assert (cache / "lib-net.pth").read_bytes() == CONTENT


def test_processes_that_start_at_once_share_one_download(cache: Path) -> None:
    with serving() as server:
        server.script = [faults.slow]
        processes = [start_process(server) for _ in range(3)]
        answers = [process.communicate(timeout=240) for process in processes]
        assert sorted(out for out, _ in answers) == ["False\n", "False\n", "True\n"], answers
        assert len(server.requests) == 1
    assert_whole(cache)


def test_a_killed_process_leaves_no_lock_and_its_bytes_are_gone_on_with(cache: Path) -> None:
    with serving() as server:
        server.script = [faults.hang_half_way]
        killed = start_process(server)
        part = cache / ".lib-net.pth.part"
        deadline = time.monotonic() + 240
        while not (part.exists() and part.stat().st_size > HALF // 2) and time.monotonic() < deadline:
            time.sleep(0.02)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        had = part.stat().st_size
        assert (cache / ".lib-net.pth.lock").exists() and had > HALF // 2
        assert start_process(server).communicate(timeout=240)[0] == "True\n"
        assert server.ranges == [None, f"bytes={had}-"]
    assert_whole(cache)
