"""What thousands of shards under one flow cost: Prefect's database, the driver, and response times of its API.

    python benchmarks/many_shards.py --shards 10000

Packs tiny images, restores them with `passthrough` through Ray and a Prefect server of its own on its default SQLite,
and meanwhile sends that server the requests of its run page.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from engine_overhead import tiny_pictures
from header import header
from watching import Taken, watched

RESULTS = Path(__file__).parent / "results"
BIN = Path(sys.executable).parent
ROWS_PER_SHARD, FILES, SIDE = 2, 10, 8
ASK_SECONDS = 2.0
Facts = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=10_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        _write_tiny_rows(scratch / "src", args.shards)
        with _prefect_server(scratch) as url:
            before = _database_bytes(scratch)
            questions = Questions(url)
            taken = _restore(scratch, url)
            questions.end()
            facts = {
                "wall seconds": round(taken.wall, 1),
                **_overhead(scratch / "out"),
                "driver's peak resident memory, MiB": round(taken.own / 2**20),
                **_in_prefect(url),
                "Prefect's database before, MiB": round(before / 2**20, 1),
                "Prefect's database after, MiB": round(_database_bytes(scratch) / 2**20, 1),
                "`database is locked` in the server's log": _log(scratch).count("database is locked"),
            }
    _report(args.shards, facts, questions.seconds)


class Questions:
    """Sends the requests of the run page over and over, and times them."""

    def __init__(self, url: str) -> None:
        self.seconds: dict[str, list[float]] = {}
        self._url, self._ended = url, threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as client:
            while not self._ended.wait(ASK_SECONDS):
                self._time(client, "the page itself", "GET", self._url.removesuffix("api"))
                runs = self._time(client, "list of flow runs", "POST", "/flow_runs/paginate", {"limit": 20})
                for run in runs.json().get("results", []):
                    mine = {"flow_runs": {"id": {"any_": [run["id"]]}}}
                    self._time(client, "the flow run", "GET", f"/flow_runs/{run['id']}")
                    self._time(client, "its graph", "GET", f"/flow_runs/{run['id']}/graph-v2")
                    self._time(client, "its task runs", "POST", "/task_runs/paginate", mine | {"limit": 20})
                    self._time(client, "its artifacts", "POST", "/artifacts/filter", mine)
                    of_run = {"logs": {"flow_run_id": {"any_": [run["id"]]}}, "limit": 200}
                    self._time(client, "its log", "POST", "/logs/filter", of_run)

    def _time(self, client: httpx.Client, what: str, verb: str, path: str, body: Any = None) -> httpx.Response:
        began = time.monotonic()
        answer = client.request(verb, path, json=body)
        answer.raise_for_status()
        self.seconds.setdefault(what, []).append(time.monotonic() - began)
        return answer


def _write_tiny_rows(folder: Path, shards: int) -> None:
    pictures = tiny_pictures(SIDE)
    folder.mkdir()
    for number in range(FILES):
        rows = ROWS_PER_SHARD * (shards // FILES + (number < shards % FILES))
        table = pa.table({"image": [pictures[i % 64] for i in range(rows)]})
        pq.write_table(table, folder / f"{number:02d}.parquet", row_group_size=ROWS_PER_SHARD)


@contextmanager
def _prefect_server(scratch: Path) -> Iterator[str]:
    """The URL of a server with a database of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "PREFECT_HOME": str(scratch / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_UI_API_URL": f"http://127.0.0.1:{port}/api",
    }
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    with (scratch / "server.log").open("w") as log:
        server = subprocess.Popen(  # noqa: S603
            [BIN / "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            env=outside | settings,
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{port}/api"
    try:
        _wait_for(f"{url}/health", server)
        yield url
    finally:
        server.terminate()
        server.wait(30)


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 180
    while server.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(url, timeout=5).is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.5)
    raise SystemExit("the Prefect server did not start")


def _restore(scratch: Path, url: str) -> Taken:
    command = [str(BIN / "bfr"), "restore", str(scratch / "src"), str(scratch / "out"), "--method", "passthrough"]
    command += ["--shard-rows", str(ROWS_PER_SHARD), "--recogniser", "none", "--fid", "none", "--lpips", "none"]
    return watched(command, {"PREFECT_API_URL": url})


def _overhead(out: Path) -> Facts:
    paths = list((out / "commits").glob("*.json"))
    commits = [json.loads(path.read_text()) for path in paths]
    times = sorted(path.stat().st_mtime for path in paths)
    return {
        "shards committed": len(commits),
        "rows": sum(commit["rows"] for commit in commits),
        "wall time of a shard, ms": round(1000 * (times[-1] - times[0]) / (len(times) - 1), 1),
        "a shard's time in the worker, which has two in hand, ms": round(
            1000 * sum(commit["seconds"] for commit in commits[1:]) / (len(times) - 1), 1
        ),
    }


def _in_prefect(url: str) -> Facts:
    def count(what: str) -> int:
        return int(httpx.post(f"{url}/{what}/count", json={}, timeout=60).json())

    (run,) = httpx.post(f"{url}/flow_runs/filter", json={}, timeout=60).json()
    return {"flow run": run["state_name"], "task runs": count("task_runs"), "artifacts": count("artifacts")}


def _database_bytes(scratch: Path) -> int:
    return sum(path.stat().st_size for path in (scratch / "prefect").glob("prefect.db*"))


def _log(scratch: Path) -> str:
    return (scratch / "server.log").read_text(errors="replace")


def _report(shards: int, facts: Facts, seconds: dict[str, list[float]]) -> None:
    lines = [
        f"Load {os.getloadavg()[2]:.1f} over the last 15 minutes; Prefect {version('prefect')} on SQLite, Ray "
        f"{version('ray')}",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in facts.items()),
        "",
        "| asked while it ran | times | mean, ms | p95, ms | longest, ms |",
        "|---|---|---|---|---|",
        *(
            f"| {what} | {len(found)} | {1000 * np.mean(found):.0f} | {1000 * np.percentile(found, 95):.0f} "
            f"| {1000 * max(found):.0f} |"
            for what, found in seconds.items()
        ),
    ]
    text = header() + "\n".join(lines) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "many_shards.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
