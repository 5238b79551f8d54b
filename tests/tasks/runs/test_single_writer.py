"""Stores without conditional puts are recognised, and have one driver at a time."""

from __future__ import annotations

import itertools
import json
import threading
import time
import uuid
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from bfr_models.errors import BfrError
from tasks.runs import single_writer
from tasks.runs.single_writer import exclusive_driver, learn_conditions
from tasks.storage.store import Store


@pytest.fixture
def url() -> str:
    """The address of an empty folder."""
    return f"memory://{uuid.uuid4().hex}"


def test_a_store_that_says_exists_of_what_it_has_just_taken_has_conditional_puts(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to the first put was lost, and the driver has put again."""
    create = Store.create

    def answer_lost(store: Store, path: str, data: bytes) -> bool:
        made = create(store, path, data)
        return made and "probe" not in path

    monkeypatch.setattr(Store, "create", answer_lost)
    assert learn_conditions(Store(url))


def test_a_store_that_takes_the_same_file_twice_has_none(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "create", lambda store, path, data: store.write(path, data) is None)
    assert not learn_conditions(Store(url))
    assert not learn_conditions(Store(url))


def test_drivers_that_start_together_go_by_what_the_first_found(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def probe(store: Store) -> bool:
        store.write("plan/storage.json", json.dumps({"conditional_puts": False}).encode())
        return True

    monkeypatch.setattr(single_writer, "_probe", probe)
    assert not learn_conditions(Store(url))
    assert json.loads(Store(url).read("plan/storage.json")) == {"conditional_puts": False}


def test_who_may_not_delete_may_run(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(store: Store, path: str) -> None:
        raise PermissionError("s3:DeleteObject")

    monkeypatch.setattr(Store, "delete", refuse)
    assert learn_conditions(Store(url))


@pytest.fixture
def unconditional(url: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A run's store without conditional puts, whose drivers renew their lease every 0.05 s."""
    monkeypatch.setattr(single_writer, "HEARTBEAT", 0.05)
    monkeypatch.setattr(single_writer, "STALE", 2.0)
    store = Store(url)
    store.write("plan/storage.json", b'{"conditional_puts": false}')
    return store


def alive(store: Store) -> str:
    return json.loads(store.read("plan/owner.json"))["alive"]


def test_a_driver_goes_on_renewing_after_trouble(unconditional: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write, failures = Store.write, itertools.repeat(OSError(5, "busy"), 3)

    def write_sometimes(store: Store, path: str, data: bytes) -> None:
        for failure in failures:
            raise failure
        write(store, path, data)

    monkeypatch.setattr(single_writer, "STALE", 600.0)
    with exclusive_driver(Store(unconditional.url())) as lost:
        monkeypatch.setattr(Store, "write", write_sometimes)
        first, deadline = alive(unconditional), time.monotonic() + 60
        while alive(unconditional) == first and time.monotonic() < deadline:
            time.sleep(0.01)
        assert alive(unconditional) > first and not lost.is_set()
    assert not unconditional.exists("plan/owner.json")


@pytest.mark.parametrize("trouble", ["errors", "no answer"])
def test_a_driver_that_cannot_renew_stops_before_another_may_start(
    trouble: str, unconditional: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock that the test sets: at half of the time from which another may take over."""
    over, now, looks = threading.Event(), [0.0], [0]

    def monotonic() -> float:
        looks[0] += 1
        return now[0]

    def write(*_: object) -> None:
        if trouble == "no answer":
            over.wait(60)
        raise OSError(5, "busy")

    monkeypatch.setattr(single_writer, "time", SimpleNamespace(monotonic=monotonic))
    with pytest.raises(BfrError, match="no answer for 1 s"), exclusive_driver(Store(unconditional.url())) as lost:  # noqa: PT012
        monkeypatch.setattr(Store, "write", write)
        now[0] = single_writer.STALE / 2
        enough, deadline = looks[0] + 3, time.monotonic() + 60
        while looks[0] < enough:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert not lost.is_set()
        now[0] += 0.1
        assert lost.wait(60)
        over.set()


def test_a_driver_whose_place_is_taken_stops(unconditional: Store) -> None:
    other = {"token": "another", "host": "h", "pid": 1, "alive": datetime.now(UTC).isoformat()}
    with pytest.raises(BfrError, match="has taken"), exclusive_driver(Store(unconditional.url())) as lost:  # noqa: PT012
        unconditional.write("plan/owner.json", json.dumps(other).encode())
        assert lost.wait(60)
    assert json.loads(unconditional.read("plan/owner.json")) == other


def test_a_driver_that_cannot_give_its_place_back_has_done_its_work(
    unconditional: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(store: Store, path: str) -> None:
        raise PermissionError("s3:DeleteObject")

    monkeypatch.setattr(Store, "delete", refuse)
    with exclusive_driver(Store(unconditional.url())) as lost:
        pass
    assert not lost.is_set()
