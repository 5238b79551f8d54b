"""A failure costs the rows it concerns and no others."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from bfr_models.errors import BfrError
from flows.restore_dataset import restore_without_prefect
from tasks.config.resolve import resolve_run
from tasks.worker.job import Order, make_job
from tasks.worker.shard_worker import ShardWorker
from tests import support
from tests.support import restored

pytestmark = pytest.mark.usefixtures("mean_colours")


def test_broken_pictures_are_rejected_with_a_code_and_their_untouched_bytes(tmp_path: Path) -> None:
    good = support.encoded(support.portrait(1))
    broken = {"": "missing", "not a picture": "undecodable", "cut": "undecodable", "speck": "too_small"}
    pictures = {
        "": None, "not a picture": b"\x00hello", "cut": good[:300],
        "speck": support.encoded(support.portrait(1, side=2)),
    }  # fmt: skip
    rows = support.make_rows(8)
    for place, (name, data) in zip((0, 2, 5, 7), pictures.items(), strict=True):
        rows[place]["image"] = {"bytes": data, "path": name}
    support.write_parquet(tmp_path / "src" / "a.parquet", rows)
    record, data = restored(tmp_path)
    rejected = support.read_table(tmp_path / "dst" / "rejected").to_pylist()
    assert data["id"].to_pylist() == [f"a.parquet#{row}" for row in (1, 3, 4, 6)]
    assert [row["error"] for row in rejected] == list(broken.values())
    assert [row["image"]["bytes"] for row in rejected] == list(pictures.values())
    assert [(row["source_row"], row["id"]) for row in rejected] == [(n, f"a.parquet#{n}") for n in (0, 2, 5, 7)]
    assert {row["source_file"] for row in rejected} == {str(tmp_path / "src" / "a.parquet")}
    assert record["rejects"] == {"undecodable": 2, "missing": 1, "too_small": 1}
    assert (record["totals"]["rows"], record["totals"]["restored"], record["totals"]["rejected"]) == (8, 4, 4)
    support.assert_whole(tmp_path / "dst", 8)


@pytest.mark.parametrize(
    ("fault", "detail"),
    [
        ("raises", "RuntimeError: not this face"),
        ("nan", "the method gave pixels that are not finite"),
        ("eats", "MemoryError: all of it"),
        ("shrinks", "ValueError: expected faces (1, 3, 96, 96), the method gave (1, 3, 48, 48)"),
    ],
)
def test_a_method_that_fails_on_one_face_costs_only_that_row(
    fault: str, detail: str, faulty: str, tmp_path: Path
) -> None:
    rows = [row | {"id": f"{fault}-{i}" if i == 5 else f"good-{i}"} for i, row in enumerate(support.make_rows(12))]
    support.write_parquet(tmp_path / "src" / "a.parquet", rows, group_rows=12)
    record, data = restored(tmp_path, faulty, shard_rows=12, batch_size=8)
    assert data["id"].to_pylist() == [f"good-{i}" for i in range(12) if i != 5]
    assert record["rejects"] == {"method_failed": 1}
    (rejected,) = support.read_table(tmp_path / "dst" / "rejected").to_pylist()
    assert (rejected["id"], rejected["detail"]) == (f"{fault}-5", detail)
    assert rejected["image"]["bytes"] == rows[5]["image"]["bytes"]
    others = [i for i in range(12) if i != 5]
    for i, picture in zip(others, data["restored"].to_pylist(), strict=True):
        assert np.array_equal(support.decoded(picture["bytes"]), support.portrait(i)[:, ::-1])


def test_a_row_group_that_does_not_read_is_rejected_row_by_row(tmp_path: Path) -> None:
    path = support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(12))
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    content = bytearray(path.read_bytes())
    content[column.data_page_offset : column.data_page_offset + 200] = bytes(200)
    path.write_bytes(content)
    record, data = restored(tmp_path)
    assert data["id"].to_pylist() == [f"a.parquet#{row}" for row in (*range(4), *range(8, 12))]
    assert record["rejects"] == {"unreadable": 4}
    support.assert_whole(tmp_path / "dst", 12)


def test_a_source_that_changes_mid_run_stops_it_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(40))
    from tasks.worker import shard_worker

    commit, calls = shard_worker.commit_shard, itertools.count(1)

    def meanwhile(*arguments: Any) -> Any:
        if next(calls) == 3:  # once: two workers' threads come through here
            support.write_parquet(path, support.make_rows(12, first=50))
        return commit(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(shard_worker, "commit_shard", meanwhile)
        with pytest.raises(BfrError, match="run the same command again"):
            restored(tmp_path)
    assert not (tmp_path / "dst" / "run.json").exists()
    record, _ = restored(tmp_path)
    assert record["totals"]["rows"] == 12
    support.assert_whole(tmp_path / "dst", 12)


def test_a_worker_that_was_given_up_and_finishes_late_changes_nothing(faulty: str, tmp_path: Path) -> None:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(4))
    run = support.make_run(tmp_path, faulty, options={"seconds": 0.2})
    (shard,) = support.plan_run(run).todo
    workers = [ShardWorker(make_job(resolve_run(run), "cpu", None)) for _ in range(3)]
    for worker in workers:
        worker.load()
    with ThreadPoolExecutor() as threads:  # three attempts at once, of which one counts
        records = list(threads.map(lambda worker: worker.run(Order(shard)), workers))
    assert records[0] == records[1] == records[2] == support.read_commits(tmp_path / "dst")[0]
    before = support.snapshot(tmp_path / "dst")
    assert workers[0].run(Order(shard)) == records[0]
    assert support.snapshot(tmp_path / "dst") == before
    restore_without_prefect(run)
    support.assert_whole(tmp_path / "dst", 4)
