"""A cluster of three hosts whose nodes and whose head go and come: the same bytes as one machine restores."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import httpx
import psutil
import pytest

from flows.evaluate_methods import evaluate_without_prefect
from tasks.config.evaluate import EvaluateRun
from tasks.config.reprocess import ReprocessRun
from tasks.runs.commits import committed
from tasks.runs.layout import generation_folder
from tasks.runs.pointer import read_pointer
from tasks.storage.store import Store
from tasks.verify_run import verify_run
from tests import support
from tests.faults.hosts import BIN, PORT, Host, three_hosts, why_not
from tests.real_photos import photo

pytestmark = [pytest.mark.minutes, pytest.mark.s3]
ROWS, GROUP_ROWS = 240, 2
SHARDS = ROWS // GROUP_ROWS
FEW = 12  # rows of what is done beside
SECONDS = float(os.environ.get("BFR_HOSTS_SECONDS", "180"))  # for any one thing to come


ALONE = {"recogniser": "none", "shard_rows": GROUP_ROWS}


def until(come: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + SECONDS
    while not (found := come()):
        assert time.monotonic() < deadline, f"no {what} in {SECONDS:.0f} s"
        time.sleep(0.2)
    return found


@dataclass
class Site:
    """The hosts, of which the first has Ray's head, the Prefect server and the drivers."""

    head: Host
    one: Host
    other: Host
    bucket: str

    def restore(self, destination: str, **options: object) -> psutil.Popen:
        settings = {"shard_rows": GROUP_ROWS, "actors": 2, "input": "faces"}
        return self.bfr("restore", "src", destination, **settings, gpus_per_actor=0, options=options)

    def bfr(self, verb: str, source: str, destination: str, **settings: object) -> psutil.Popen:
        """A command on the head, with the method of the tests and these settings."""
        path = self.head.folder / f"{destination}.yaml"
        path.write_text(json.dumps({"method": "faulty", "recogniser": "none", **settings}))
        places = (f"{self.bucket}/{source}", f"{self.bucket}/{destination}")
        return self.head.start(BIN / "bfr", verb, *places, "--config", path)

    def all_up(self) -> None:
        """Starts what is not up."""
        for host in (self.one, self.other):
            if not host.all_processes():
                host.start_ray(self.head, 2)
        self.nodes(3)

    def commits(self, destination: str) -> int:
        return len(committed(Store(f"{self.bucket}/{destination}")))

    def more(self, destination: str, count: int = 3) -> None:
        """Waits for some more shards."""
        before = self.commits(destination)
        until(lambda: self.commits(destination) >= min(SHARDS, before + count), "further commits")

    def nodes(self, count: int) -> None:
        """Waits until the cluster has so many nodes."""
        code = "import ray; ray.init('auto', log_to_driver=False, logging_level='ERROR'); "
        code += "print('alive', sum(node['Alive'] for node in ray.nodes()))"

        def there() -> bool:
            command = ["ip", "netns", "exec", self.head.name, str(BIN / "python"), "-c", code]
            environment = self.head.environment | {"RAY_ADDRESS": f"{self.head.address}:{PORT}"}
            said = subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout
            return f"alive {count}" in said

        until(there, f"cluster of {count} nodes")


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    if not shutil.which("radosgw"):
        pytest.skip("no radosgw: apt-get install ceph-mon ceph-osd ceph-mgr radosgw ceph-common")
    if reason := why_not():
        pytest.skip(reason)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="bfr-") as name:
        folder = Path(name)
        keys = {"AWS_ACCESS_KEY_ID": "bfr-test", "AWS_SECRET_ACCESS_KEY": "bfr-test-secret"}
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex * 2}
        inherited = {k: os.environ[k] for k in ("PATH", "LANG") if k in os.environ}
        environment = inherited | keys | token | {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
        with three_hosts(folder, environment) as (hosts, address):
            port, script = support.free_ports(3), str(support.ROOT / "infra" / "s3-server.sh")
            server = {"S3_HOST": address, **os.environ}
            subprocess.run([script, "start", str(folder / "s3"), str(port)], env=server, check=True, timeout=300)
            try:
                keys["AWS_ENDPOINT_URL"] = f"http://{address}:{port}"
                for host in hosts:
                    host.environment |= {
                        "AWS_ENDPOINT_URL": keys["AWS_ENDPOINT_URL"], "PREFECT_HOME": str(host.folder / "prefect"),
                        "RAY_ADDRESS": f"{hosts[0].address}:{PORT}", "PREFECT_API_URL": f"http://{hosts[0].address}:4200/api",
                    }  # fmt: skip
                for key, value in keys.items():
                    patch.setenv(key, value)
                bucket = f"s3://{uuid.uuid4().hex}"
                fsspec.filesystem("s3", skip_instance_cache=True).mkdir(bucket[5:])
                yield started(Site(*hosts, bucket), folder)
            finally:
                subprocess.run([script, "stop", str(folder / "s3")], check=False, timeout=60)


def started(site: Site, folder: Path) -> Site:
    """With Ray, Prefect, and a dataset in the bucket."""
    file = support.write_parquet(folder / "a.parquet", support.make_rows(ROWS, side=24), group_rows=GROUP_ROWS)
    Store(f"{site.bucket}/src").write("a.parquet", file.read_bytes())
    few = support.write_parquet(folder / "few.parquet", support.make_rows(FEW, side=96), group_rows=GROUP_ROWS)
    Store(f"{site.bucket}/few").write("few.parquet", few.read_bytes())
    photos = [{"image": {"bytes": support.encoded(photo(n % 2)[n:]), "path": f"{n}.png"}} for n in range(FEW)]
    scans = support.write_parquet(folder / "scans.parquet", photos, group_rows=GROUP_ROWS)
    Store(f"{site.bucket}/scans").write("scans.parquet", scans.read_bytes())
    site.head.start(BIN / "prefect", "server", "start", "--host", site.head.address, "--port", 4200)
    until(lambda: answers(f"http://{site.head.address}:4200/api/health"), "Prefect server")
    site.head.start_ray(site.head, 0)
    until(lambda: "Ray runtime started" in site.head.said, "head")
    site.one.start_ray(site.head, 2)
    site.nodes(2)
    return site


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False


def restored_by_one_machine(site: Site, faulty: str) -> dict[str, bytes]:
    destination = f"{site.bucket}/one-machine"
    places = {"source": f"{site.bucket}/src", "destination": destination}
    support.finished_run(support.make_run(Path("/"), faulty, **places, **ALONE))
    return support.restored_images_at(destination)


def test_whatever_happens_to_hosts_the_bytes_are_those_of_one_machine(site: Site, faulty: str) -> None:
    """One run: a node joins late, is cut off, another is frozen, one killed, and in the end the head goes."""
    driver = site.restore("dst", seconds=1.2)  # long enough for all that is to happen, on a busy machine too
    until(lambda: site.commits("dst") > 0, "first commit")
    site.other.start_ray(site.head, 2)  # late
    site.nodes(3)
    site.more("dst")
    site.one.cut_off()
    site.more("dst")
    site.one.kill()  # as its raylet ends itself when it hears that it was given up
    site.one.cut_off(again=True)
    site.one.start_ray(site.head, 2)
    site.nodes(3)
    site.more("dst")
    site.other.freeze()
    site.more("dst")
    site.other.freeze(again=True)
    site.other.kill()
    site.more("dst")
    assert driver.poll() is None and site.commits("dst") < SHARDS, site.head.said[-3000:]

    site.head.kill(but=site.head.processes[0])  # all but the Prefect server
    assert driver.wait(SECONDS) != 0
    done = site.commits("dst")
    assert 0 < done < SHARDS
    site.one.kill()
    site.head.start_ray(site.head, 0)
    for host in (site.one, site.other):
        host.start_ray(site.head, 2)
    site.nodes(3)
    assert site.restore("dst", seconds=1.2).wait(4 * SECONDS) == 0, site.head.said[-3000:]
    found = verify_run(f"{site.bucket}/dst")
    assert {problem["kind"] for problem in found["problems"]} <= {"file_extra"}, found["problems"]  # of those who died
    assert found["rows"] == ROWS
    assert support.restored_images_at(f"{site.bucket}/dst") == restored_by_one_machine(site, faulty)


def test_photos_comparisons_and_generations_are_those_of_one_machine_though_a_node_dies(
    site: Site, faulty: str
) -> None:
    """Three commands side by side, while a node is killed and started again."""
    site.all_up()
    slow = {"options": {"seconds": 0.5}, "shard_rows": GROUP_ROWS, "actors": 1}
    compared = ("--methods", "passthrough,faulty", "--degrade", "gfpgan", "--size", 96, "--shard-rows", GROUP_ROWS)
    drivers = [
        site.bfr("restore", "scans", "photos", input="photos", **slow),
        site.bfr("reprocess", "few", "generations", input="faces", **slow),
        site.head.start(
            BIN / "bfr", "evaluate", f"{site.bucket}/few", f"{site.bucket}/compared", *compared, "--actors", 1,
            "--recogniser", "none", "--lpips", "none",
        ),
    ]  # fmt: skip
    until(lambda: site.commits("photos") > 0, "first photo")
    site.one.kill()
    site.one.start_ray(site.head, 2)
    for driver in drivers:
        assert driver.wait(4 * SECONDS) == 0, site.head.said[-3000:]

    alone = {name: f"{site.bucket}/{name}-alone" for name in ("photos", "generations", "compared")}
    few = {"source": f"{site.bucket}/few", **ALONE}
    scans = {"source": f"{site.bucket}/scans", "destination": alone["photos"], "input": "photos", **ALONE}
    support.finished_run(support.make_run(Path("/"), faulty, **scans))
    reprocessing = few | {"destination": alone["generations"], "input": "faces", "method": faulty, "engine": "local"}
    support.finished_generation(ReprocessRun(**reprocessing))
    methods = {"methods": ("passthrough", faulty), "degrade": "gfpgan", "size": 96, "lpips": "none"}
    evaluate_without_prefect(EvaluateRun(**few, **methods, destination=alone["compared"], engine="local"))

    def images(name: str, destination: str) -> list[dict[str, bytes]]:
        folders = {"photos": [""], "compared": ["/passthrough", "/faulty"]}.get(name)
        if folders is None:  # the generation's name tells the options, and only one of both sleeps
            folders = ["/" + generation_folder(str(read_pointer(Store(destination)).generation))]
        return [support.restored_images_at(destination + folder) for folder in folders]

    for name, place in alone.items():
        found = images(name, f"{site.bucket}/{name}")
        assert all(len(part) == FEW for part in found), name
        assert found == images(name, place), name
