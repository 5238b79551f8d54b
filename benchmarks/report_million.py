"""The report of a run of a million rows: seconds, memory of the driver, and size of the page.

    python benchmarks/report_million.py

One shard of 32 real rows is restored; 31,250 commits are made from its record, each with scores of its own, under names
that are links to its files. What closing such a run does for its report is then measured: the commits are summed, the
faces chosen and read, the page written.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from header import header

from tasks.config.restore import RestoreRun
from tasks.report.run_report import write_report
from tasks.runs.commits import read_commits
from tasks.runs.manifest import manifest_entry
from tasks.runs.plan import Plan, latest_plan
from tasks.runs.record import read_record
from tasks.runs.shards import Shard, from_table, to_table
from tasks.scoring.statistics import Totals
from tasks.storage.store import Store

RESULTS = Path(__file__).parent / "results"
SHARDS, ROWS = 31_250, 32


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, run = _restored(Path(folder))
        record = read_record(store)
        plan = latest_plan(store)
        (shard,) = from_table(plan.shards)
        (commit,) = read_commits(store, [shard.commit])
        assert record is not None
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        shards = [_linked(Path(folder), shard, number) for number in range(SHARDS)]
        manifest, totals, began = [], Totals(), time.perf_counter()
        for number, one in enumerate(shards):
            copy = _like(commit, one, number)
            manifest.append(manifest_entry(copy))
            totals.add(copy)
        summed = time.perf_counter() - began
        record |= {
            "examples": totals.examples.to_json(),
            "timings": totals.timings.to_json(),
            "distributions": {name: found.to_report() for name, found in totals.distributions.items() if found.n},
            "totals": record["totals"] | {"rows": totals.rows, "restored": totals.restored, "faces": totals.faces},
        }
        _link_data(Path(folder), commit, manifest)
        many = Plan(plan.number, to_table(shards), frozenset(one.commit for one in shards))
        began = time.perf_counter()
        write_report(store, many, manifest, record, run)
        facts = {
            "rows": totals.rows,
            "seconds to sum the commits": round(summed, 1),
            "seconds for the page": round(time.perf_counter() - began, 1),
            "page, MB": round((Path(folder) / "dst" / "report" / "index.html").stat().st_size / 1e6, 2),
            "peak memory before, MiB": before // 1024,
            "peak memory, MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }
    print(json.dumps(facts, indent=2))
    lines = [f"| {name} | {value:,} |" for name, value in facts.items()]
    (RESULTS / "report_million.md").write_text(header() + "\n".join(["| | |", "|---|---|", *lines]) + "\n")


def _restored(folder: Path) -> tuple[Store, RestoreRun]:
    """A run of 32 faces of 128 px; in a process of its own, so that its memory is not counted."""
    code = f"""
import os, pyarrow as pa, pyarrow.parquet as pq
from tasks.make_demo_faces import make_demo_faces
from flows.restore_dataset import restore_without_prefect
from tasks.config.restore import RestoreRun
make_demo_faces({str(folder / "lq")!r})
table = pq.read_table({str(folder / "lq")!r})
table = pa.concat_tables([table] * 3).slice(0, {ROWS})
os.makedirs({str(folder / "src")!r})
pq.write_table(table.drop_columns(["gt"]), {str(folder / "src" / "a.parquet")!r})
restore_without_prefect(RestoreRun(**{_arguments(folder)!r}))
"""
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603
    return Store(str(folder / "dst")), RestoreRun(**_arguments(folder))


def _arguments(folder: Path) -> dict[str, Any]:
    places = {"source": str(folder / "src"), "destination": str(folder / "dst")}
    return {**places, "method": "difface", "input": "faces", "engine": "local"}


def _linked(folder: Path, shard: Shard, number: int) -> Shard:
    """A shard of a file that is a link to the one real file."""
    link = folder / "src" / f"{number:05}.parquet"
    os.link(folder / "src" / "a.parquet", link)
    return replace(shard, id=f"{number:020x}", source=str(link), name=link.name)


def _like(commit: dict[str, Any], shard: Shard, number: int) -> dict[str, Any]:
    rng = random.Random(number)
    files = {"data": commit["files"]["data"] | {"path": f"data/{number:05}.parquet"}}
    examples = [
        one | {"identity": round(rng.uniform(0.9, 1), 4), "gain": round(rng.uniform(-0.1, 0.3), 4)}
        for one in commit["examples"]
    ]
    timings = commit["timings"] | {"worker": f"worker {number % 64}"}
    return commit | {"shard": shard.id, "files": files, "examples": examples, "timings": timings}


def _link_data(folder: Path, commit: dict[str, Any], manifest: list[dict[str, Any]]) -> None:
    for entry in manifest:
        os.link(folder / "dst" / commit["files"]["data"]["path"], folder / "dst" / entry["data"])


if __name__ == "__main__":
    main()
