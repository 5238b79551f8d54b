"""Stores without conditional puts: they are told from others, and have one driver."""

from __future__ import annotations

import json
import uuid

import pytest

from tasks import _single_writer
from tasks._single_writer import run_store
from tasks._storage import Store


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
    assert run_store(url).conditional


def test_a_store_that_takes_the_same_file_twice_has_none(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "create", lambda store, path, data: store.write(path, data) is None)
    assert not run_store(url).conditional
    assert not run_store(url).conditional


def test_drivers_that_start_together_go_by_what_the_first_found(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def probe(store: Store) -> bool:
        store.write("plan/storage.json", json.dumps({"conditional_puts": False}).encode())
        return True

    monkeypatch.setattr(_single_writer, "_probe", probe)
    assert not run_store(url).conditional
    assert json.loads(Store(url).read("plan/storage.json")) == {"conditional_puts": False}


def test_who_may_not_delete_may_run(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(store: Store, path: str) -> None:
        raise PermissionError("s3:DeleteObject")

    monkeypatch.setattr(Store, "delete", refuse)
    assert run_store(url).conditional
