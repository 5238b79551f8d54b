"""`bfr restore --plan` says what there is to do and writes nothing."""

from __future__ import annotations

from pathlib import Path

from tasks.config.resolve import resolve_run
from tasks.estimate_run import estimate_run
from tests import support


def test_it_counts_what_a_run_would_do_and_writes_nothing(tmp_path: Path) -> None:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(10))
    run = support.make_run(tmp_path)
    before = support.snapshot(tmp_path)
    for _ in range(2):  # the second finds what the first left: nothing
        found = estimate_run(resolve_run(run))
        assert (found["rows"], found["rows_to_do"], found["shards_to_do"]) == (10, 10, 3)
        assert found["sample_rows"] == 4 and found["bytes"] > 0
    assert support.snapshot(tmp_path) == before


def test_what_is_done_is_not_counted_again(tmp_path: Path) -> None:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(10))
    run = support.make_run(tmp_path)
    support.finished_run(run)
    support.write_parquet(tmp_path / "src" / "b.parquet", support.make_rows(3))
    found = estimate_run(resolve_run(run))
    assert (found["rows"], found["rows_to_do"], found["shards_to_do"]) == (13, 3, 1)
    (tmp_path / "src" / "b.parquet").unlink()
    assert estimate_run(resolve_run(run))["seconds"] == 0
