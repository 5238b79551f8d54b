"""A Ray cluster on this machine whose own autoscaler starts and ends nodes, which are processes here.

As `ray.cluster_utils.AutoscalingCluster`, which reads a file that Ray's wheel lacks, and begins and ends with `ray stop
--force`: that would end other clusters of this user as well.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tasks.config.environment import prepare_environment
from tasks.engine.ray_token import prepare_token
from tests.support import free_ports

PATIENCE = 240.0  # seconds for anything to happen
NODE_RESOURCES = {"CPU": 1, "GPU": 1, "object_store_memory": 80 * 2**20}  # the GPU is claimed: nobody looks for it
_HEAD = "ray.head.default"  # the name that this provider gives to the head
_MEMORY = 80 * 2**20
_NOTHING = ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands")
_NOTHING += ("head_start_ray_commands", "worker_start_ray_commands", "rsync_exclude", "rsync_filter")


@dataclass(frozen=True)
class Autoscaler:
    """The running cluster: a head without CPUs and GPUs, and from 0 to `most` nodes."""

    address: str
    folder: Path

    @property
    def nodes(self) -> int:
        """How many there are now, besides the head: one to a raylet's command, which a child shares until it execs."""
        commands = {tuple(process.info["cmdline"]) for process in self.processes()}
        return len([command for command in commands if Path(command[0]).name == "raylet"]) - 1

    def processes(self) -> list[psutil.Process]:
        """All of the cluster."""
        place = str(self.folder / "ray")
        return [p for p in psutil.process_iter(["cmdline"]) if place in " ".join(p.info["cmdline"] or ())]


@contextmanager
def autoscaling_cluster(
    folder: Path, most: int, environment: Mapping[str, str], idle_seconds: float = 5.0
) -> Iterator[Autoscaler]:
    """Starts one whose nodes end after some idle seconds. `folder` must be short: Ray's sockets are below it."""
    prepare_environment()
    prepare_token()
    port = free_ports(2)
    settings = folder / "autoscaler.json"
    cluster = Autoscaler(f"127.0.0.1:{port}", folder)
    settings.write_text(json.dumps(_settings(cluster.address, most, idle_seconds)))
    words = ["start", "--head", "--block", f"--port={port}", "--node-ip-address=127.0.0.1", "--num-cpus=0",
             "--num-gpus=0", f"--object-store-memory={_MEMORY}", "--include-dashboard=false",
             f"--ray-client-server-port={port + 1}", f"--temp-dir={folder / 'ray'}",
             "--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0",
             f"--autoscaling-config={settings}"]  # fmt: skip
    ours = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    with (folder / "head.log").open("w") as log:
        head = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", *words],
            stdout=log, stderr=log, env={**os.environ, **environment, **ours}, start_new_session=True,
        )  # fmt: skip
    try:
        wait_until(lambda: "Ray runtime started" in (folder / "head.log").read_text() or head.poll() is not None)
        assert head.poll() is None, (folder / "head.log").read_text()
        yield cluster
    finally:
        head.send_signal(signal.SIGTERM)
        left = cluster.processes()
        for process in psutil.wait_procs(left, timeout=10)[1]:
            process.kill()
        head.wait(30)


def wait_until(happened: Callable[[], object], patience: float = PATIENCE) -> float:
    """The seconds until it has happened."""
    began = time.monotonic()
    while not happened():
        if (waited := time.monotonic() - began) > patience:
            raise TimeoutError(f"nothing has happened within {waited:.0f} s")
        time.sleep(0.2)
    return time.monotonic() - began


def figures_of(port: int) -> dict[str, float]:
    """The figures that a run serves at --metrics-port; none before it does."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return {name: float(value) for name, value in re.findall(r"^(\w+) ([\d.]+)$", answer.read().decode(), re.M)}
    except OSError:
        return {}


def _settings(address: str, most: int, idle_seconds: float) -> dict[str, object]:
    head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    node = {"resources": NODE_RESOURCES, "node_config": {}, "min_workers": 0, "max_workers": most}
    return {
        "cluster_name": "fake", "max_workers": most, "upscaling_speed": 10.0, "idle_timeout_minutes": idle_seconds / 60,
        "provider": {"type": "fake_multinode", "use_node_id_as_ip": True, "disable_node_updaters": True,
                     "disable_launch_config_check": True, "launch_multiple": True, "gcs_address": address},
        "available_node_types": {_HEAD: head, "gpu": node}, "head_node_type": _HEAD, "auth": {}, "docker": {},
        "file_mounts": {}, "cluster_synced_files": [], "file_mounts_sync_continuously": False,
        **{name: [] for name in _NOTHING},
    }  # fmt: skip
