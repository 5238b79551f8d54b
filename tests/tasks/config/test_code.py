"""A run is done by one version of the code, unless a person says otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bfr_models.errors import UsageError
from tasks.config import code
from tasks.config.resolve import resolve_run
from tasks.config.restore import RestoreRun
from tasks.repair_run import repair_run
from tasks.restore_shards import restore_shards, worker_pool
from tasks.runs.plan import freeze_plan, latest_plan
from tasks.runs.shards import from_table
from tasks.storage.store import Store
from tasks.verify_run import verify_run
from tests import support


@pytest.fixture
def change_code(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    def change(digest: str) -> None:
        monkeypatch.setattr(code, "_package_digest", lambda: digest)
        code.running_code.cache_clear()

    yield change
    monkeypatch.undo()
    code.running_code.cache_clear()


@pytest.fixture
def begun(source: Path, change_code: Callable[[str], None]) -> RestoreRun:
    """A run with one of its three shards done, by the code "before"."""
    change_code("before")
    run = support.make_run(source.parent, recogniser="none")
    plan = support.plan_run(run)
    with worker_pool(resolve_run(run)) as pool:
        restore_shards(pool, list(plan.todo)[:1], lambda _: None)
    return run


def codes(run: RestoreRun) -> list[str]:
    return [commit["code"]["bfr"] for commit in support.read_commits(Path(run.destination))]


def test_the_code_is_a_digest_and_versions() -> None:
    found = code.running_code()
    assert set(found) == {"bfr", "torch", "pillow", "opencv", "tifffile", "imagecodecs", "pyarrow", "numpy"}
    assert len(found["bfr"]) == 16 and "none" not in found.values() and "+" not in found["torch"]


def test_a_resume_with_other_code_is_refused_and_writes_nothing(
    begun: RestoreRun, change_code: Callable[[str], None]
) -> None:
    change_code("after")
    before = support.snapshot(Path(begun.destination))
    with pytest.raises(UsageError, match=r"bfr: expected before, found after.*--accept-code-change"):
        support.finished_run(begun)
    assert support.snapshot(Path(begun.destination)) == before
    change_code("before")
    assert support.finished_run(begun)["totals"]["rows"] == 12


def test_a_resume_that_accepts_it_goes_on_and_each_shard_says_which_code_made_it(
    begun: RestoreRun, change_code: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    change_code("after")
    with caplog.at_level("WARNING"):
        record = support.finished_run(begun.model_copy(update={"accept_code_change": True}))
    assert "goes on with other code (bfr: expected before, found after)" in caplog.text
    assert record["totals"]["rows"] == 12 and record["code"]["bfr"] == "after"
    assert sorted(codes(begun)) == ["after", "after", "before"]
    assert latest_plan(Store(begun.destination)).made_by["code"]["bfr"] == "after"
    assert verify_run(begun.destination)["ok"]


def test_what_was_accepted_once_is_not_asked_again(begun: RestoreRun, change_code: Callable[[str], None]) -> None:
    change_code("after")
    support.plan_run(begun.model_copy(update={"accept_code_change": True}))
    assert support.finished_run(begun)["totals"]["rows"] == 12


def test_a_repair_that_has_to_restore_by_other_code_is_refused_and_writes_nothing(
    begun: RestoreRun, change_code: Callable[[str], None]
) -> None:
    support.finished_run(begun)
    next((Path(begun.destination) / "data").iterdir()).write_bytes(b"")
    change_code("after")
    before = support.snapshot(Path(begun.destination))
    with pytest.raises(UsageError, match=r"bfr: expected before, found after.*--accept-code-change"):
        repair_run(begun.destination)
    assert support.snapshot(Path(begun.destination)) == before
    repair = repair_run(begun.destination, accept_code_change=True)
    assert repair.todo and repair.resolved is not None
    support.finished_run(repair.resolved.run)
    assert verify_run(begun.destination)["ok"]


def test_a_finished_run_is_a_no_op_under_any_code_until_there_is_more_to_do(
    begun: RestoreRun, source: Path, change_code: Callable[[str], None]
) -> None:
    support.finished_run(begun)
    change_code("after")
    before = support.snapshot(Path(begun.destination))
    support.finished_run(begun)
    assert support.snapshot(Path(begun.destination)) == before
    support.write_parquet(source / "d.parquet", support.make_rows(4, first=40))
    with pytest.raises(UsageError, match="--accept-code-change"):
        support.finished_run(begun)


def test_a_run_of_an_older_version_does_not_say_and_is_resumed(begun: RestoreRun) -> None:
    store = Store(begun.destination)
    plan = latest_plan(store)
    store.delete("plan/00000.parquet")
    freeze_plan(store, 0, list(from_table(plan.shards)))
    (path,) = (Path(begun.destination) / "commits").iterdir()
    added = {"code", "settings", "place", "checksum"}
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key not in added}))
    code.running_code.cache_clear()
    assert support.finished_run(begun)["totals"]["rows"] == 12
    assert verify_run(begun.destination)["ok"]


def test_a_commit_says_on_which_node_it_was_made(begun: RestoreRun) -> None:
    (commit,) = support.read_commits(Path(begun.destination))
    assert commit["process"] == code.this_process()
    assert set(commit["process"]) == {"host", "address", "pid"}
