"""`bfr verify` on a whole run, and on runs with one defect each."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bfr_models.errors import UsageError
from tasks.runs.sealed import seal
from tasks.verify_run import verify_run
from tests import support


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A run of three shards; in the middle one a row is rejected."""
    rows = [row | {"id": f"row-{i}"} for i, row in enumerate(support.make_rows(12))]
    rows[5]["image"] = {"bytes": b"broken", "path": None}
    support.write_parquet(tmp_path / "src" / "a.parquet", rows)
    support.finished_run(support.make_run(tmp_path))
    return tmp_path / "dst"


def kinds(destination: Path) -> set[str]:
    return {problem["kind"] for problem in verify_run(str(destination))["problems"]}


def middle(destination: Path) -> tuple[Path, dict[str, object]]:
    """The commit of the shard with a rejected row."""
    (path,) = (p for p in (destination / "commits").iterdir() if json.loads(p.read_text())["rejected"])
    return path, json.loads(path.read_text())


def rewrite(destination: Path, folder: str, change: Callable[[pa.Table], pa.Table]) -> None:
    """Replaces a file of the middle shard, with a commit that says what is now in it."""
    path, commit = middle(destination)
    entry = commit["files"][folder]  # type: ignore[index]
    table = change(pq.read_table(destination / entry["path"]))
    pq.write_table(table, sink := io.BytesIO())
    (destination / entry["path"]).write_bytes(sink.getvalue())
    import hashlib

    entry |= {"bytes": len(sink.getvalue()), "sha256": hashlib.sha256(sink.getvalue()).hexdigest()}
    path.write_text(json.dumps(seal(commit)))


def test_a_whole_run_is_well(finished: Path) -> None:
    found = verify_run(str(finished))
    assert found["ok"] and found["problems"] == []
    assert (found["rows_in"], found["rows"], found["restored"], found["rejected"]) == (12, 12, 11, 1)
    assert (found["shards"], found["files"]) == (3, 4)
    assert found["bytes"] == sum(p.stat().st_size for f in ("data", "rejected") for p in (finished / f).iterdir())


def test_ids_that_are_not_unique_are_no_problem(tmp_path: Path) -> None:
    rows = [row | {"id": "twin", "image": {"bytes": b"" if i in (1, 4) else row["image"]["bytes"], "path": None}}
            for i, row in enumerate(support.make_rows(8))]  # fmt: skip
    support.write_parquet(tmp_path / "src" / "a.parquet", rows)
    support.finished_run(support.make_run(tmp_path))
    assert verify_run(str(tmp_path / "dst"))["ok"]


def test_one_flipped_bit_is_found(finished: Path) -> None:
    path = next((finished / "data").iterdir())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert kinds(finished) >= {"file_changed"}


def test_a_file_that_has_gone_and_one_too_many_are_found(finished: Path) -> None:
    next((finished / "data").iterdir()).unlink()
    (finished / "rejected" / "stranger.parquet").write_bytes(b"")
    assert kinds(finished) >= {"file_missing", "file_extra"}


def test_a_commit_that_has_gone_makes_a_run_unfinished(finished: Path) -> None:
    next((finished / "commits").iterdir()).unlink()
    found = verify_run(str(finished))
    assert [problem["kind"] for problem in found["problems"]] == ["unfinished"]
    assert "1 of 3 shards" in found["problems"][0]["detail"]


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.slice(1),
        lambda table: pa.concat_tables([table.slice(0, 1), table.slice(0, 1), table.slice(2)]),
        lambda table: table.take([1, 0, 2]),
    ],
    ids=["a row less", "a row twice", "another order"],
)
def test_rows_that_are_not_those_of_the_source_are_found(
    change: Callable[[pa.Table], pa.Table], finished: Path
) -> None:
    rewrite(finished, "data", change)
    assert kinds(finished) >= {"rows_differ"}


def test_a_rejected_row_of_elsewhere_is_found(finished: Path) -> None:
    rewrite(finished, "rejected", lambda t: t.set_column(t.schema.get_field_index("source_row"), "source_row", [[11]]))
    assert kinds(finished) == {"rows_differ"}


def test_a_commit_of_another_method_is_found(finished: Path) -> None:
    path, commit = middle(finished)
    path.write_text(json.dumps(seal(commit | {"fingerprint": "f" * 64})))
    assert kinds(finished) == {"other_method"}


def test_totals_that_do_not_add_up_are_found(finished: Path) -> None:
    record = support.read_record(finished)
    record["totals"]["restored"] += 1
    (finished / "run.json").write_text(json.dumps(seal(record)))
    assert kinds(finished) == {"totals_differ"}


def test_a_run_that_has_only_begun_is_unfinished_and_no_run_is_none(tmp_path: Path) -> None:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(4))
    support.plan_run(support.make_run(tmp_path))
    assert kinds(tmp_path / "dst") == {"unfinished"}
    with pytest.raises(UsageError, match="expected a run at"):
        verify_run(str(tmp_path / "nothing"))
