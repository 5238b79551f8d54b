"""Runs on stores without conditional puts: one driver at a time, and commits that look before they write.

`create` is exact on local disks, on S3 and its better copies, on Google's and Azure's stores. Others ignore the
condition, or do not know it: that is found out once per run, and kept in `plan/storage.json`.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from bfr_models.errors import BfrError, UsageError
from tasks._connection import redact, redact_text
from tasks._storage import Store

_log = logging.getLogger(__name__)

WARNING = (
    "this store has no conditional puts: the run is in single-writer mode, in which two drivers at the same time on "
    "one destination are not safe; start one, and wait for its end before the next"
)
HEARTBEAT = 20.0  # seconds
STALE = 6 * HEARTBEAT

_FACTS, _OWNER = "plan/storage.json", "plan/owner.json"


def run_store(url: str) -> Store:
    """The store of a run, as its first driver found it to be."""
    store = Store(url)
    try:
        facts = store.read(_FACTS)
    except FileNotFoundError:
        store.conditional = _probe(store)
        store.create(_FACTS, json.dumps({"conditional_puts": store.conditional}).encode())
        facts = store.read(_FACTS)  # of drivers that start together, all go by what the first one found
    store.conditional = json.loads(facts)["conditional_puts"]
    return store


def _probe(store: Store) -> bool:
    """Whether a second `create` of the same file is refused."""
    path = f"plan/probe-{uuid.uuid4().hex}"
    try:
        made = store.create(path, b"1") or store.read(path) == b"1"  # "exists" may be our own: a lost response
        return made and not store.create(path, b"2")
    except NotImplementedError:
        return False
    finally:
        _remove(store, path)


def _remove(store: Store, path: str) -> None:
    """Removes a file that does no harm where it stays: not everyone who may write may also delete."""
    try:
        store.delete(path)
    except Exception as error:  # each driver has its own
        _log.warning("%s stays: %s", redact(store.url(path)), redact_text(f"{type(error).__name__}: {error}"))


@contextmanager
def sole_driver(url: str) -> Iterator[threading.Event]:
    """Holds the destination where that is needed; the event is set when it is lost. UsageError if another driver
    gave a sign of life a short while ago."""
    store, lost, ended = run_store(url), threading.Event(), threading.Event()
    if store.conditional:
        yield lost
        return
    token = uuid.uuid4().hex
    if owner := _owner(store):
        age = (datetime.now(UTC) - datetime.fromisoformat(owner["alive"])).total_seconds()
        if age < STALE:
            raise UsageError(
                f"expected {store!r} for this driver alone ({WARNING}), found one that is at work on {owner['host']}, "
                f"process {owner['pid']}, heard of {age:.0f} s ago; wait for it, or stop it and wait {STALE:.0f} s"
            )
    _sign(store, token)
    thread = threading.Thread(target=_stay_alive, args=(store, token, lost, ended), daemon=True)
    thread.start()
    try:
        yield lost
    finally:
        ended.set()
        thread.join(5)
        owner = _owner(store)
        if owner and owner["token"] == token:
            _remove(store, _OWNER)
    if lost.is_set():
        raise BfrError(
            f"another driver has taken {store!r} over ({WARNING}); run the same command again when it is done"
        )


def _stay_alive(store: Store, token: str, lost: threading.Event, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT):
        owner = _owner(store)
        if owner is None or owner["token"] != token:
            lost.set()
            return
        _sign(store, token)


def _owner(store: Store) -> dict[str, str] | None:
    try:
        found: dict[str, str] = json.loads(store.read(_OWNER))
    except FileNotFoundError:
        return None
    return found


def _sign(store: Store, token: str) -> None:
    signed = {"token": token, "host": socket.gethostname(), "pid": os.getpid(), "alive": datetime.now(UTC).isoformat()}
    store.write(_OWNER, json.dumps(signed).encode())
