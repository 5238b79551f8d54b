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
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from bfr_models.errors import BfrError, UsageError
from tasks.runs.layout import OWNER, STORAGE_FACTS
from tasks.storage.redaction import redact_text
from tasks.storage.retry import retry_deadline
from tasks.storage.store import Store

_log = logging.getLogger(__name__)

WARNING = (
    "this store has no conditional puts: the run is in single-writer mode, in which two drivers at the same time on "
    "one destination are not safe; start one, and wait for its end before the next"
)
HEARTBEAT = 20.0  # seconds
STALE = 6 * HEARTBEAT


def learn_conditions(store: Store) -> bool:
    """Whether a run's store knows create-only puts: as its first driver found out, which is kept with the run. Asked
    once for each `Store`, which from then on writes accordingly."""
    if store.conditional is not None:
        return store.conditional
    try:
        facts = store.read(STORAGE_FACTS)
    except FileNotFoundError:
        store.conditional = _probe(store)
        store.create(STORAGE_FACTS, json.dumps({"conditional_puts": store.conditional}).encode())
        facts = store.read(STORAGE_FACTS)  # of drivers that start together, all go by what the first one found
    store.conditional = bool(json.loads(facts)["conditional_puts"])
    return store.conditional


def _probe(store: Store) -> bool:
    """Whether a second `create` of the same file is refused."""
    path = f"plan/probe-{uuid.uuid4().hex}"
    try:
        made = store.create(path, b"1") or store.read(path) == b"1"  # "exists" may be our own: a lost response
        return made and not store.create(path, b"2")
    except NotImplementedError:
        return False
    finally:
        with _logged(f"{store!r} keeps {path}"):  # not everyone who may write may also delete
            store.delete(path)


@contextmanager
def exclusive_driver(store: Store) -> Iterator[threading.Event]:
    """Holds the destination where that is needed; the event is set when it is lost. UsageError if another driver
    gave a sign of life a short while ago."""
    if learn_conditions(store):
        yield threading.Event()
        return
    if owner := _owner(store):
        age = (datetime.now(UTC) - datetime.fromisoformat(owner["alive"])).total_seconds()
        if age < STALE:
            raise UsageError(
                f"expected {store!r} for this driver alone ({WARNING}), found one that is at work on {owner['host']}, "
                f"process {owner['pid']}, heard of {age:.0f} s ago; wait for it, or stop it and wait {STALE:.0f} s"
            )
    hold = _Hold(store)
    try:
        yield hold.lost
    finally:
        hold.end()
    if hold.lost.is_set():
        raise BfrError(f"{hold.why} ({WARNING}); run the same command again when no other driver is at work")


class _Hold:
    """A driver's hold on its destination. Threads renew it until `end`; `lost` is set when it is another's, or could
    be soon."""

    def __init__(self, store: Store) -> None:
        self.lost, self.why = threading.Event(), ""
        self._store, self._token, self._ended = store, uuid.uuid4().hex, threading.Event()
        self._renew()
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._stay_alive, self._watch)]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Gives the destination back, if it is still ours."""
        self._ended.set()
        for thread in self._threads:
            thread.join(5)
        with _logged(f"{self._store!r} is held for another {STALE:.0f} s"), retry_deadline(HEARTBEAT):
            if self._is_ours():
                self._store.delete(OWNER)

    def _stay_alive(self) -> None:
        while not self._ended.wait(HEARTBEAT):
            with _logged(f"{self._store!r} could not be held, which is tried again"), retry_deadline(HEARTBEAT):
                if not self._is_ours():
                    self._lose(f"another driver has taken {self._store!r} over")
                    return
                self._renew()

    def _watch(self) -> None:
        """Apart from the requests, of which one may take for ever."""
        while not self._ended.wait(HEARTBEAT / 10):
            if time.monotonic() - self._renewed > STALE / 2:
                self._lose(f"{self._store!r} could not be held: no answer for {STALE / 2:.0f} s")
                return

    def _is_ours(self) -> bool:
        owner = _owner(self._store)
        return owner is not None and owner["token"] == self._token

    def _renew(self) -> None:
        now, began = datetime.now(UTC).isoformat(), time.monotonic()
        signed = {"token": self._token, "host": socket.gethostname(), "pid": os.getpid(), "alive": now}
        self._store.write(OWNER, json.dumps(signed).encode())
        self._renewed = began

    def _lose(self, why: str) -> None:
        self.why = why
        self.lost.set()


@contextmanager
def _logged(what: str) -> Iterator[None]:
    """Trouble in its block is logged, and is no reason to stop."""
    try:
        yield
    except Exception as error:  # each driver has its own
        _log.warning("%s", redact_text(f"{what}: {type(error).__name__}: {error}"))


def _owner(store: Store) -> dict[str, str] | None:
    try:
        found: dict[str, str] = json.loads(store.read(OWNER))
    except FileNotFoundError:
        return None
    return found
