"""Runs on stores without conditional puts: one driver at a time, and commits that check before they write.

`create` is atomic on local disks, S3 and its better clones, Google Cloud Storage and Azure. Other stores ignore the
condition or refuse it. Each run tries it out once and keeps the answer in `plan/storage.json`: a store that is upgraded
in the middle of a run must not change the rules between two drivers.

What holds the destination is a heartbeat, not a lock: it relies on clocks and on drivers that renew it in time. Hence
the wide margins below, and the WARNING in the run's record.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from bfr_models.errors import BfrError, UsageError
from tasks.runs.layout import OWNER, STORAGE_FACTS
from tasks.runs.sealed import damaged, read_json
from tasks.storage.redaction import redact_text
from tasks.storage.retry import retry_deadline
from tasks.storage.store import Store

_log = logging.getLogger(__name__)

WARNING = (
    "this store has no conditional puts: the run is in single-writer mode, in which two drivers at the same time on "
    "one destination are not safe; start one, and wait for its end before the next"
)
HEARTBEAT = 20.0  # seconds between two renewals
STALE = 6 * HEARTBEAT  # age from which another driver may take over; the holder itself gives up at half of it


def learn_conditions(store: Store) -> bool:
    """Whether the run's store has create-only puts: its first driver tries it out, all others read the answer. A
    `Store` remembers it, and writes accordingly from then on."""
    if store.conditional is None:
        try:
            store.conditional = stored_conditions(store)
        except FileNotFoundError:
            store.conditional = _probe(store)
            store.create(STORAGE_FACTS, json.dumps({"conditional_puts": store.conditional}).encode())
            # If several drivers start together, all go by the first one's answer.
            store.conditional = stored_conditions(store)
    return store.conditional


def stored_conditions(store: Store) -> bool:
    """The answer that a run has kept. FileNotFoundError, or DamagedError."""
    found = read_json(store, STORAGE_FACTS).get("conditional_puts")
    if not isinstance(found, bool):
        raise damaged(store, STORAGE_FACTS, f"conditional_puts: {found!r}, neither true nor false")
    return found


def _probe(store: Store) -> bool:
    """Whether the store refuses to `create` the same file twice."""
    path = f"plan/probe-{uuid.uuid4().hex}"
    try:
        # "Exists" may mean our own put, whose response was lost.
        made = store.create(path, b"1") or store.read(path) == b"1"
        return made and not store.create(path, b"2")
    except NotImplementedError:
        return False
    finally:
        with _logged(f"cannot remove {path} from {store}"):  # permission to write does not imply permission to delete
            store.delete(path)


@contextmanager
def exclusive_driver(store: Store) -> Iterator[threading.Event]:
    """Holds the destination on a store that needs it; the event is set when the hold is lost. UsageError if another
    driver has given a recent sign of life."""
    if learn_conditions(store):
        yield threading.Event()
        return
    if owner := _owner(store):
        age = (datetime.now(UTC) - datetime.fromisoformat(owner["alive"])).total_seconds()
        if age < STALE:
            raise UsageError(
                f"expected no other driver on {store} ({WARNING}), found one at work on {owner['host']}, process "
                f"{owner['pid']}, last seen {age:.0f} s ago; wait for it, or stop it and wait {STALE:.0f} s"
            )
    hold = _Hold(store)
    try:
        yield hold.lost
    finally:
        hold.end()
    if hold.lost.is_set():
        raise BfrError(f"{hold.why} ({WARNING}); run the same command again once no other driver is at work")


class _Hold:
    """A driver's hold on its destination, renewed by threads until `end`. `lost` is set once another driver has it, or
    might have it soon."""

    def __init__(self, store: Store) -> None:
        self.lost, self.why = threading.Event(), ""
        self._store, self._token, self._ended = store, uuid.uuid4().hex, threading.Event()
        self._renew()
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._stay_alive, self._watch)]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Releases the destination, if it is still ours."""
        self._ended.set()
        for thread in self._threads:
            thread.join(5)
        with _logged(f"{self._store} stays held for {STALE:.0f} s"), retry_deadline(HEARTBEAT):
            if self._is_ours():
                self._store.delete(OWNER)

    def _stay_alive(self) -> None:
        while not self._ended.wait(HEARTBEAT):
            with _logged(f"could not renew the hold on {self._store}; trying again"), retry_deadline(HEARTBEAT):
                if not self._is_ours():
                    self._lose(f"another driver has taken over {self._store}")
                    return
                self._renew()

    def _watch(self) -> None:
        """Gives up in time. A thread of its own, since the request in `_stay_alive` may hang."""
        while not self._ended.wait(HEARTBEAT / 10):
            if time.monotonic() - self._renewed > STALE / 2:
                self._lose(f"could not renew the hold on {self._store}: no answer for {STALE / 2:.0f} s")
                return

    def _is_ours(self) -> bool:
        owner = _owner(self._store)
        return owner is not None and owner["token"] == self._token

    def _renew(self) -> None:
        now, began = datetime.now(UTC).isoformat(), time.monotonic()
        signed = {"token": self._token, "host": socket.gethostname(), "pid": os.getpid(), "alive": now}
        self._store.write(OWNER, json.dumps(signed).encode())
        self._renewed = began  # from before the put, like the time that other drivers see

    def _lose(self, why: str) -> None:
        self.why = why
        self.lost.set()


@contextmanager
def _logged(what: str) -> Iterator[None]:
    """Logs any error in its block instead of raising it: none is a reason to stop a run."""
    try:
        yield
    except Exception as error:  # each storage library has its own types
        _log.warning("%s", redact_text(f"{what}: {type(error).__name__}: {error}"))


def _owner(store: Store) -> dict[str, str] | None:
    try:
        return read_json(store, OWNER)
    except FileNotFoundError:
        return None
