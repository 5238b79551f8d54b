"""Whatever happens to an attempt, a shard is done once, and one file holds it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from tasks.runs.commits import commit_shard, committed, orphans, read_commit, read_commits, vacuum
from tasks.storage.store import Store
from tests import support

FILES = {"data": b"data", "rejected": b"rejected"}
FACTS = {"rows": 3}


class Crash(BaseException):
    """The process dies here."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def commit(store: Store, files: dict[str, bytes] | None = None) -> dict[str, Any]:
    return commit_shard(store, support.make_shard(), FILES if files is None else files, FACTS)


def live_files(store: Store) -> list[str]:
    return sorted(entry["path"] for entry in read_commit(store, "s")["files"].values())


def test_a_commit_names_its_files_with_their_sizes_and_hashes(store: Store) -> None:
    record = commit(store)
    assert record == read_commit(store, "s") and record["rows"] == 3
    assert committed(store) == {"s"}
    assert store.read(record["files"]["data"]["path"]) == b"data"
    assert record["files"]["data"]["bytes"] == 4
    assert record["files"]["data"]["sha256"].startswith("3a6eb079")


def test_the_first_to_commit_wins_and_the_losers_files_go(store: Store) -> None:
    winner = commit(store)
    assert commit(store, {"data": b"later"}) == winner
    assert store.list("data") + store.list("rejected") == live_files(store)


def test_a_commit_whose_response_was_lost_is_still_ours(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    create = store.create
    monkeypatch.setattr(store, "create", lambda path, data: create(path, data) and False)
    record = commit(store)
    assert record == read_commit(store, "s")
    assert store.read(record["files"]["data"]["path"]) == b"data"


def test_of_racing_threads_exactly_one_wins(store: Store) -> None:
    start = Barrier(8)

    def attempt(number: int) -> dict[str, Any]:
        start.wait()
        return commit(store, {"data": bytes([number])})

    with ThreadPoolExecutor(8) as threads:
        records = list(threads.map(attempt, range(8)))
    assert len({record["attempt"] for record in records}) == 1
    assert store.list("data") == live_files(store)


@pytest.mark.parametrize("point", ["before the data", "after the data", "before the commit", "after the commit"])
def test_a_crash_at_any_point_then_a_redo_leaves_one_live_file(
    point: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        verb = "write" if "data" in point else "create"
        do = getattr(store, verb)

        def crash(path: str, data: bytes, **_: bool) -> bool:
            if point.startswith("after"):
                do(path, data)
            raise Crash

        patch.setattr(store, verb, crash)
        with pytest.raises(Crash):
            commit(store)
    redone = commit(store)
    vacuum(store, orphans(store, {"s"}, set(live_files(store))))
    assert redone == read_commit(store, "s")
    assert store.list("data") + store.list("rejected") == live_files(store)
    assert [store.read(path) for path in live_files(store)] == [b"data", b"rejected"]


def test_vacuum_keeps_what_live_commits_name_and_nothing_else(store: Store) -> None:
    commit(store)
    keep = set(live_files(store))
    store.write("data/s-000000000000.parquet", b"an attempt that was killed")
    dead = commit_shard(store, support.make_shard("dead"), {"data": b"of a file that changed"}, FACTS)["files"]["data"][
        "path"
    ]
    found = orphans(store, {"s"}, keep)
    assert found[0] == "commits/dead.json", "a commit must never outlive its files"
    assert set(found[1:]) == {"data/s-000000000000.parquet", dead}
    vacuum(store, found)
    assert set(store.list("data") + store.list("rejected")) == keep
    assert committed(store) == {"s"}


def test_commits_are_read_in_the_order_asked_for(store: Store) -> None:
    for number in range(40):
        store.write(f"commits/{number}.json", json.dumps({"n": number}).encode())
    order = [str(number) for number in reversed(range(40))]
    assert [record["n"] for record in read_commits(store, order)] == list(reversed(range(40)))
