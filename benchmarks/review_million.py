"""How soon `bfr review` shows the first faces of a run of a million, and how fast it pages, filters and counts them.

    python benchmarks/review_million.py

Makes a run of that many rows with a face each, in files as a worker commits them, and opens it three times: the first
review of a run reads all of its files, later ones the table of faces that the first has left. Seconds count from the
start of the command. Writes `benchmarks/results/review_million.md`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from header import header  # noqa: E402

from flows.restore_dataset import restore_without_prefect  # noqa: E402
from tasks.datasets.writer import encode_table  # noqa: E402
from tasks.runs.commits import commit_shard  # noqa: E402
from tasks.runs.layout import COMMITS, SPEC, STORAGE_FACTS  # noqa: E402
from tasks.runs.manifest import manifest_entry, write_manifest  # noqa: E402
from tasks.runs.plan import freeze_plan, latest_plan  # noqa: E402
from tasks.runs.record import write_record  # noqa: E402
from tasks.runs.reviews import APPROVED, Decision, FaceKey, Reviews  # noqa: E402
from tasks.runs.sealed import seal  # noqa: E402
from tasks.runs.shards import from_table  # noqa: E402
from tasks.storage.store import Store  # noqa: E402
from tests import support  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "review_million.md"
BASE, SIDE = 8, 16
QUERIES = {
    "next page": "api/faces?order=doubt&limit=25&key=0.5&after=17",
    "by identity, one decade": "api/faces?order=identity&decade=1930&limit=25",
    "score from 0.95 to 0.96": "api/faces?score=identity&low=0.95&high=0.96&limit=25",
    "one folder": "api/faces?folder=box-17&limit=25",
    "progress": "api/progress?state=open",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--shard-rows", type=int, default=1000)
    parser.add_argument("--decisions", type=int, default=10_000, help="that have been made before, one by one")
    parser.add_argument("--work", type=Path, help="folder for the run, used again if there; else a temporary one")
    args = parser.parse_args()
    work = Path(args.work or tempfile.mkdtemp(prefix="bfr-review-"))
    try:
        if not (work / "run" / "run.json").exists():
            make_run(work, args.rows, args.shard_rows)
        for path in (work / "run" / "review").glob("faces-*"):
            path.unlink()
        shutil.rmtree(work / "run" / "review" / "decisions", ignore_errors=True)
        opened = {"first review": opening(work / "run"), "second review": opening(work / "run")}
        decide(work / "run", args.decisions)
        opened[f"third review, {args.decisions:,} decisions"] = opening(work / "run")
    finally:
        if args.work is None:
            shutil.rmtree(work)
    text = table(opened, args)
    RESULTS.write_text(text)
    print(text)


def make_run(work: Path, rows: int, shard_rows: int) -> None:
    """A finished run: commits, plan and manifest are the product's own, the rows are copies with other scores."""
    small, rng = work / "small", np.random.default_rng(0)
    support.write_parquet(small / "src" / "a.parquet", support.make_rows(BASE, side=SIDE), group_rows=BASE)
    restore_without_prefect(support.make_run(small, shard_rows=BASE, recogniser="none"))
    store, done = Store(str(work / "run")), Store(str(small / "dst"))
    for path in (SPEC, STORAGE_FACTS):
        store.write(path, done.read(path))
    (shard,) = from_table(latest_plan(done).shards)
    facts = json.loads(done.read(done.list(COMMITS)[0]))
    facts = {name: facts[name] for name in ("fingerprint", "settings", "code", "source", "ids", "statistics")}
    template = support.read_table(small / "dst" / "data").slice(0, 1)
    face = template["faces"][0].as_py()[0]
    shards = [
        replace(shard, id=f"{number:020x}", name=f"{number}.parquet", rows=min(shard_rows, rows - start))
        for number, start in enumerate(range(0, rows, shard_rows))
    ]
    freeze_plan(store, 0, shards)
    entries = []
    for number, one in enumerate(shards):
        scores = rng.uniform(0.85, 1, (one.rows, 3))
        columns = {
            "id": [f"box-{number % 100}/{number:05}-{row:04}.jpg" for row in range(one.rows)],
            "restored": template["restored"].to_pylist() * one.rows,
            "faces": [
                [face | {"identity_similarity": a, "gain": b - 0.8, "gain_spread": 0.1, "harm": 1 - c}]
                for a, b, c in scores.tolist()
            ],
            "year": rng.integers(1880, 1990, one.rows).tolist(),
        }
        schema = pa.schema([template.schema.field(name) for name in ("id", "restored", "faces")]).append(
            pa.field("year", pa.int32())
        )
        data = encode_table(pa.table(columns, schema=schema), 64)
        counts = {"rows": one.rows, "restored": one.rows, "rejected": 0, "rejects": {}}
        entries.append(manifest_entry(commit_shard(store, one, {"data": data}, facts | counts)))
    write_manifest(store, entries)
    record = json.loads(done.read("run.json"))
    totals = record["totals"] | {"rows": rows, "shards": len(shards), "restored": rows, "faces": rows}
    record |= {"plan": 0, "totals": totals, "recogniser": {"name": "dlib_resnet_v1"}}
    write_record(store, seal({name: value for name, value in record.items() if name != "checksum"}))


def decide(run: Path, count: int) -> None:
    """Decisions of one reviewer, each a record of its own."""
    store = Store(str(run))
    reviews, shards = Reviews(store), list(from_table(latest_plan(store).shards))
    for number in range(count):
        key = FaceKey(shards[number % len(shards)].id, number // len(shards), 0)
        reviews.decide("Anna", [Decision(key, str(number), APPROVED)])
    reviews.bundle()  # as a session does at its end


def opening(run: Path) -> dict[str, float]:
    """Seconds from the start of the command until the address is printed, until the first faces are told, and until all
    have been read; and what some requests take then."""
    began = time.perf_counter()
    command = [*support.BFR, "review", str(run)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as bfr:  # noqa: S603
        assert bfr.stderr is not None
        url = next(line for line in bfr.stderr if line.startswith("review: ")).split()[1]
        found = {"address": time.perf_counter() - began}
        ask(url)
        ask(f"{url}api/about")
        while not (faces := ask(f"{url}api/faces?limit=25")):
            time.sleep(0.02)
        found["first faces"] = time.perf_counter() - began
        times = psutil.Process(bfr.pid).children()[0].cpu_times()
        found["CPU until then"] = times.user + times.system
        ask(f"{url}face/{faces[0]['face']}/after")
        found["first picture"] = time.perf_counter() - began
        while (read := ask(f"{url}api/progress")["read"])[0] < read[1]:
            time.sleep(0.1)
        found["all read"] = time.perf_counter() - began
        for name, query in QUERIES.items():
            started = time.perf_counter()
            ask(f"{url}{query}")
            found[name] = time.perf_counter() - started
        request = urllib.request.Request(f"{url}api/end", b"{}", {"Content-Type": "application/json"})  # noqa: S310
        urllib.request.urlopen(request).read()  # noqa: S310
    return found


def ask(url: str) -> Any:
    with urllib.request.urlopen(url) as answer:  # noqa: S310  of this machine
        data = answer.read()
        return json.loads(data) if answer.headers["Content-Type"] == "application/json" else data


def table(opened: dict[str, dict[str, float]], args: argparse.Namespace) -> str:
    names = list(next(iter(opened.values())))
    lines = [
        header(),
        "",
        f"# A review of {args.rows:,} faces in {-(-args.rows // args.shard_rows):,} files",
        "",
        "Seconds. Those up to *all read* count from the start of the command, on a machine that did other work; the "
        "others are single requests. *CPU until then* is what the command itself has used by the first faces.",
        "",
        "| | " + " | ".join(names) + " |",
        "|---" * (len(names) + 1) + "|",
        *(
            f"| {what} | " + " | ".join(f"{seconds[name]:.2f}" for name in names) + " |"
            for what, seconds in opened.items()
        ),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
