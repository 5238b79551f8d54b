"""A run's first steps before its recipe, which takes them over."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import pytest

from bfr_models.errors import UsageError
from flows.orchestration.early_start import early_start, taken_early_start
from flows.restore_dataset import restore_without_prefect
from tasks.config.resolve import ResolvedRun, resolve_run
from tasks.engine.thread_pool import ThreadPool
from tasks.pack_pictures import files_of_run
from tasks.runs import single_writer
from tasks.runs.commits import committed
from tasks.runs.prepare import prepare_run
from tasks.storage.store import Store
from tasks.worker.job import Order
from tests import support


@pytest.fixture
def resolved(tmp_path: Path) -> ResolvedRun:
    """A run of five shards."""
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(20))
    return resolve_run(support.make_run(tmp_path))


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch) -> list[Order]:
    """What workers are given, in order: of five shards two before the recipe, as if none had room to wait."""
    monkeypatch.setattr(ThreadPool, "waiting_room", 0)
    given: list[Order] = []
    submit = ThreadPool.submit

    def noted(pool: ThreadPool, order: Order) -> None:
        given.append(order)
        submit(pool, order)

    monkeypatch.setattr(ThreadPool, "submit", noted)
    return given


def wait_for_first_shards(resolved: ResolvedRun) -> None:
    store, deadline = Store(resolved.run.destination), time.monotonic() + 240
    while len(committed(store)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_recipe_goes_on_where_the_workers_are(resolved: ResolvedRun, orders: list[Order]) -> None:
    """Even where they are done with what they were given: each shard is given once, and counted."""
    with early_start(resolved):
        assert len(orders) == 2
        wait_for_first_shards(resolved)
        record = restore_without_prefect(resolved.run)
    assert len(orders) == 5 and len({order.shard.id for order in orders}) == 5
    assert record["totals"]["rows"] == 20 and record["totals"]["shards"] == 5
    support.assert_whole(Path(resolved.run.destination), 20)


def test_the_time_of_a_run_counts_from_its_first_steps(resolved: ResolvedRun) -> None:
    with early_start(resolved):
        wait_for_first_shards(resolved)
        record = restore_without_prefect(resolved.run)
    worked = sum(commit["seconds"] for commit in support.read_commits(Path(resolved.run.destination))[:1])
    assert record["totals"]["wall_seconds"] >= worked


def test_so_does_that_of_a_run_of_files(tmp_path: Path) -> None:
    """Its recipe takes over a run that knows where its source was when it began, which was just now."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.png").write_bytes(support.encoded(support.portrait(1)))
    run = support.make_run(tmp_path)
    files = files_of_run(run.source, run.destination)
    assert files is not None
    files.pack()
    resolved = prepare_run(run.model_copy(update={"source": files.url}))
    with early_start(resolved):
        assert taken_early_start(prepare_run(resolved.run)) is not None


def test_a_run_that_is_left_before_its_recipe_is_resumed(resolved: ResolvedRun, orders: list[Order]) -> None:
    with suppress(KeyboardInterrupt), early_start(resolved):
        wait_for_first_shards(resolved)
        raise KeyboardInterrupt
    record = restore_without_prefect(resolved.run)
    assert len(orders) == 5 and record["totals"]["rows"] == 20


def test_another_run_begins_by_itself(resolved: ResolvedRun, tmp_path: Path) -> None:
    other = resolved.run.model_copy(update={"destination": str(tmp_path / "other")})
    with early_start(resolved):
        assert restore_without_prefect(other)["totals"]["rows"] == 20


def test_trouble_with_the_store_is_left_to_the_recipe(
    resolved: ResolvedRun, orders: list[Order], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("busy")

    with monkeypatch.context() as broken:
        broken.setattr("flows.orchestration.early_start.plan_shards", fail)
        with early_start(resolved):
            assert orders == []
            assert restore_without_prefect(resolved.run)["totals"]["rows"] == 20


def test_what_cannot_be_done_is_said_at_once(resolved: ResolvedRun) -> None:
    support.finished_run(resolved.run)
    other = resolve_run(resolved.run.model_copy(update={"seed": 5}))
    with pytest.raises(UsageError, match="seed"), early_start(other):
        pytest.fail("it must not go on")


def test_nothing_is_begun_where_the_destination_has_to_be_held_first(
    resolved: ResolvedRun, orders: list[Order], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(single_writer, "_probe", lambda store: False)
    with early_start(resolved):
        assert orders == []
        assert restore_without_prefect(resolved.run)["totals"]["rows"] == 20
    assert len(orders) == 5
