"""What does not hold is done again, and nothing else; what is gone is made again from what is there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bfr_models.errors import BfrError, UsageError
from tasks.config.resolve import resolve_run
from tasks.config.restore import RestoreRun
from tasks.finish_run import finish_run
from tasks.restore_shards import restore_shards, worker_pool
from tasks.runs.mending import retire, shards_by_commits
from tasks.runs.plan import latest_plan
from tasks.runs.sealed import seal
from tasks.storage.store import Store
from tasks.vacuum_run import vacuum_run
from tasks.verify_run import verify_run
from tests import support


@pytest.fixture
def run(source: Path) -> RestoreRun:
    return support.make_run(source.parent, recogniser="none")


def begin(run: RestoreRun, count: int) -> None:
    """Does some shards of a run, and leaves it there."""
    plan = support.plan_run(run)
    with worker_pool(resolve_run(run)) as pool:
        restore_shards(pool, list(plan.todo)[:count], lambda _: None)


def first(run: RestoreRun, pattern: str) -> Path:
    return sorted(Path(run.destination).glob(pattern))[0]


def test_a_resume_says_what_is_damaged_and_does_that_alone_again(
    run: RestoreRun, caplog: pytest.LogCaptureFixture
) -> None:
    begin(run, 2)
    lost, kept = sorted(Path(run.destination, "data").iterdir())
    lost.write_bytes(lost.read_bytes()[:-1])
    whole = kept.read_bytes(), kept.stat().st_mtime_ns
    with caplog.at_level("WARNING"):
        plan = support.plan_run(run)
    assert "1 of 3 shards are damaged and are done again" in caplog.text and lost.name in caplog.text
    assert plan.number == 1 and sorted(shard.generation for shard in plan.todo) == [0, 1]
    assert support.finished_run(run)["totals"]["rows"] == 12
    assert (kept.read_bytes(), kept.stat().st_mtime_ns) == whole
    assert [path.name.startswith(lost.name) for path in Path(run.destination, "damaged", "data").iterdir()] == [True]
    support.assert_whole(Path(run.destination), 12)
    assert verify_run(run.destination)["ok"]


def test_a_finished_run_with_damage_is_no_silent_no_op(run: RestoreRun, caplog: pytest.LogCaptureFixture) -> None:
    support.finished_run(run)
    before = support.restored_images(Path(run.destination))
    first(run, "data/*").unlink()
    with caplog.at_level("WARNING"):
        assert support.finished_run(run)["plan"] == 1
    assert "promises it" in caplog.text
    assert support.restored_images(Path(run.destination)) == before
    assert verify_run(run.destination)["ok"]


def test_a_commit_of_another_shard_costs_neither_rows_nor_a_good_file(run: RestoreRun) -> None:
    begin(run, 2)
    one, two = sorted(Path(run.destination, "commits").iterdir())
    path = json.loads(one.read_text())["files"]["data"]["path"]
    good = Path(run.destination, path).read_bytes()
    shutil.copyfile(two, one)
    assert support.finished_run(run)["totals"]["rows"] == 12
    support.assert_whole(Path(run.destination), 12)
    assert good in [copy.read_bytes() for copy in Path(run.destination, "damaged").rglob("*.parquet.*")]


def test_same_size_and_other_bytes_are_found_by_deep_alone(run: RestoreRun) -> None:
    begin(run, 2)
    path = first(run, "data/*")
    path.write_bytes(bytes(path.stat().st_size))
    assert support.plan_run(run).number == 0
    deep = run.model_copy(update={"deep": True})
    assert support.plan_run(deep).number == 1


def test_closing_finds_what_was_damaged_meanwhile(run: RestoreRun) -> None:
    begin(run, 3)
    first(run, "data/*").write_bytes(b"")
    with pytest.raises(BfrError, match=r"found damage \(data/.*run the same command again"):
        finish_run(resolve_run(run), Store(run.destination), support.now())
    assert not Path(run.destination, "run.json").exists()
    assert support.finished_run(run)["totals"]["rows"] == 12


def test_two_drivers_that_retire_share_the_plan_of_the_first(run: RestoreRun) -> None:
    begin(run, 3)
    store = Store(run.destination)
    plan = latest_plan(store)
    one, two, _ = plan.commits
    winner = retire(store, plan, {one}, {})
    loser = retire(store, plan, {one, two}, {})
    assert winner.number == loser.number == 1 and loser.commits == winner.commits
    assert [shard.commit for shard in loser.todo] == [f"{one}.1"]


def test_a_shard_never_gets_a_generation_that_has_a_commit(run: RestoreRun) -> None:
    begin(run, 3)
    store = Store(run.destination)
    plan = latest_plan(store)
    store.write(f"commits/{plan.commits[0]}.4.json", b"{}")
    assert retire(store, plan, {plan.commits[0]}, {}).commits[0] == f"{plan.commits[0]}.5"


def test_a_plan_that_is_gone_is_made_again_with_its_generations_and_the_files_that_have_gone(
    run: RestoreRun, source: Path
) -> None:
    support.finished_run(run)
    first(run, "data/*").unlink()
    support.finished_run(run)  # one shard has a generation now
    (source / "c.parquet").unlink()
    plan = latest_plan(Store(run.destination))
    for path in Path(run.destination, "plan").glob("*.parquet"):
        path.unlink()
    before = support.snapshot(Path(run.destination) / "data")
    assert support.finished_run(run)["totals"]["rows"] == 12
    assert set(latest_plan(Store(run.destination)).commits) == set(plan.commits)
    assert support.snapshot(Path(run.destination) / "data") == before
    assert verify_run(run.destination)["ok"]


def test_the_newest_plan_alone_gone_costs_nothing(run: RestoreRun, source: Path) -> None:
    support.finished_run(run)
    support.write_parquet(source / "d.parquet", support.make_rows(4, first=40))
    support.finished_run(run)
    Path(run.destination, "plan", "00001.parquet").unlink()
    before = support.snapshot(Path(run.destination) / "data")
    assert {"plan_missing"} <= {problem["kind"] for problem in verify_run(run.destination)["problems"]}
    assert support.finished_run(run)["totals"]["rows"] == 16
    assert support.snapshot(Path(run.destination) / "data") == before
    assert verify_run(run.destination)["ok"]


def test_rows_of_a_gone_file_that_an_older_version_did_not_place_are_not_dropped(run: RestoreRun, source: Path) -> None:
    support.finished_run(run)
    for path in Path(run.destination, "commits").iterdir():
        commit = json.loads(path.read_text())
        del commit["place"], commit["checksum"]
        path.write_text(json.dumps(commit))
    Path(run.destination, "plan", "00000.parquet").unlink()
    (source / "c.parquet").unlink()
    with pytest.raises(UsageError, match=r"c\.parquet to plan the run again, found it gone"):
        support.finished_run(run)
    assert len(support.read_ids(Path(run.destination) / "data")) == 12


def test_of_a_gone_file_the_version_that_was_planned_last_counts(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for number, version in enumerate(("older", "newer")):
        shard = support.make_shard(version, version=version, plan=number)
        place: dict[str, Any] = vars(shard)
        record = seal({"shard": shard.id, "generation": 0, "source": shard.source, "place": place})
        store.write(f"commits/{version}.json", json.dumps(record).encode())
    assert [shard.version for shard in shards_by_commits(store, [])] == ["newer"]


def test_vacuum_keeps_the_copies_and_reads_no_superseded_commit(run: RestoreRun) -> None:
    support.finished_run(run)
    first(run, "commits/*").write_text("{")
    support.finished_run(run)
    copies = support.snapshot(Path(run.destination) / "damaged")
    Path(run.destination, "commits", "of-another-run.json").write_text("{")
    vacuum_run(run.destination)
    assert copies and support.snapshot(Path(run.destination) / "damaged") == copies


def test_on_an_object_store_damage_is_mended_the_same_way(run: RestoreRun, bucket: str) -> None:
    run = run.model_copy(update={"destination": f"{bucket}/mending"})
    support.finished_run(run)
    before, store = support.restored_images_at(run.destination), Store(run.destination)
    gone, cut, *_ = store.list("data")
    store.delete(gone)
    store.write(cut, store.read(cut)[:-9])
    assert support.finished_run(run)["plan"] == 1
    assert support.restored_images_at(run.destination) == before
    assert verify_run(run.destination)["ok"] and len(store.list("damaged")) == 3
