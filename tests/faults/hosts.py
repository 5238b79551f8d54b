"""Three hosts on this machine: network namespaces with addresses of their own, joined by a switch with an S3 server.

They share the kernel, and nothing that a run may rely on: each has its copy of the code, folders of its own, and no way
to the others but the network. Needs root, and `ip` of iproute2.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.support import ROOT

BIN = Path(sys.executable).parent
PORT = 6379
QUICK = {  # a node that is gone is known in seconds
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "5",
}


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=60)


def why_not() -> str:
    """Why there can be no such hosts here; "" if there can."""
    if shutil.which("ip") is None:
        return "no `ip`: apt-get install iproute2"
    name = f"bfr-{os.getpid()}-try"
    try:
        ip("netns", "add", name)
        ip("netns", "del", name)
    except subprocess.CalledProcessError as error:
        return f"no network namespaces here: {error.stderr.decode().strip()}"
    return ""


@dataclass
class Host:
    """One of them; processes that are started on it are its own until it is killed."""

    name: str
    address: str
    folder: Path
    environment: dict[str, str]
    processes: list[psutil.Popen] = field(default_factory=list)

    def start(self, *command: object, **environment: str) -> psutil.Popen:
        """A process whose output goes to the end of `said`."""
        with (self.folder / "log").open("a") as log:
            process = psutil.Popen(
                ["ip", "netns", "exec", self.name, *map(str, command)], env=self.environment | environment,
                cwd=self.folder, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def start_ray(self, head: Host, cpus: int) -> None:
        """Its part of the cluster."""
        place = ["--head", f"--port={PORT}"] if head is self else [f"--address={head.address}:{PORT}"]
        small = [
            f"--num-cpus={cpus}",
            "--num-gpus=0",
            f"--object-store-memory={80 * 2**20}",
            "--include-dashboard=false",
        ]
        where = [f"--node-ip-address={self.address}", f"--temp-dir={self.folder}/ray", "--block"]
        where += ["--dashboard-agent-grpc-port=6381", "--runtime-env-agent-port=6382"]  # known at once
        self.start(BIN / "ray", "start", *place, *where, *(small if head is self else small[:-1]), **QUICK)

    @property
    def said(self) -> str:
        return (self.folder / "log").read_text()

    def cut_off(self, *, again: bool = False) -> None:
        """Takes its cable out, or puts it in again."""
        ip("link", "set", f"{self.name}-s", "up" if again else "down")

    def all_processes(self) -> list[psutil.Process]:
        """Those in its namespace, orphans among them."""
        listed = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=False).stdout
        found = []
        for pid in listed.split():
            with suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(int(pid)))
        return found

    def kill(self, *, but: psutil.Popen | None = None) -> None:
        """As a power cut does it."""
        spared = {but.pid, *(child.pid for child in but.children(recursive=True))} if but else set()
        for process in self.all_processes():
            if process.pid not in spared:
                with suppress(psutil.NoSuchProcess):
                    process.kill()

    def freeze(self, *, again: bool = False) -> None:
        """Nothing on it moves any more, or everything does again."""
        for process in self.all_processes():
            with suppress(psutil.NoSuchProcess):
                process.resume() if again else process.suspend()


@contextmanager
def three_hosts(folder: Path, environment: Mapping[str, str]) -> Iterator[tuple[list[Host], str]]:
    """The hosts, and the address of this machine on their network, where a server for all of them may listen."""
    short, net = f"b{os.getpid() % 100000}", f"198.18.{random.randrange(1, 255)}"
    bridge = f"{short}-br"
    hosts = []
    try:
        ip("link", "add", bridge, "type", "bridge")
        ip("addr", "add", f"{net}.1/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        for number, letter in enumerate("abc", start=2):
            name, address = f"{short}{letter}", f"{net}.{number}"
            ip("netns", "add", name)
            ip("link", "add", f"{name}-s", "type", "veth", "peer", "name", f"{name}-h")
            ip("link", "set", f"{name}-s", "master", bridge, "up")
            ip("link", "set", f"{name}-h", "netns", name)
            ip("-n", name, "addr", "add", f"{address}/24", "dev", f"{name}-h")
            ip("-n", name, "link", "set", f"{name}-h", "up")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "route", "add", "default", "via", f"{net}.1")
            own = folder / letter
            (own / "home").mkdir(parents=True)
            hosts.append(Host(name, address, own, {**environment, "HOME": str(own / "home"), "PYTHONPATH": _code(own)}))
        yield hosts, f"{net}.1"
    finally:
        for host in hosts:
            host.freeze(again=True)
            host.kill()
            for process in host.processes:
                process.wait(20)
            subprocess.run(["ip", "netns", "del", host.name], check=False)
        subprocess.run(["ip", "link", "del", bridge], check=False, capture_output=True)


def _code(folder: Path) -> str:
    """A copy of the packages, as the wheel has them, and of the method of the tests."""
    copy = folder / "code"
    for package in ("flows", "tasks", "bfr_models"):
        shutil.copytree(
            ROOT / package, copy / package, copy_function=_link, ignore=shutil.ignore_patterns("__pycache__")
        )
    (copy / "tests").mkdir()
    shutil.copyfile(ROOT / "tests" / "faulty_methods.py", copy / "tests" / "faulty_methods.py")
    about = copy / "faulty_methods-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty-methods\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[bfr.methods]\nfaulty = tests.faulty_methods:SPEC\n")
    return str(copy)


def _link(source: str, destination: str) -> None:
    """Weights are many megabytes, and nobody writes to them."""
    try:
        os.link(source, destination)
    except OSError:  # another disk
        shutil.copyfile(source, destination)
