"""Where the time of a worker goes: each shard in its hands has a clock, which is in exactly one stage at any moment.

So the seconds of the stages add up to the time that passed, whatever is timed and whatever is not. Code says what it
does by `with stage("decode"):`; a stage within another interrupts it. Switching costs about a microsecond, so that it
is always on. Without a clock, `stage` does nothing.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from types import TracebackType
from typing import Any, TypeVar, cast

from tasks.runs.timings import IDLE, OTHER, Span

DIGITS = 5  # of seconds
Item = TypeVar("Item")

_clock: ContextVar[Clock | None] = ContextVar("clock", default=None)


class Clock:
    """The clock of one shard at a time. Between two shards it is idle, from `since` on at first."""

    def __init__(self, slot: int, since: float, traced: bool) -> None:
        self.slot = slot
        self._stage, self._since = IDLE, since
        self._seconds: dict[str, float] = {}
        self._spans: list[Span] | None = [] if traced else None

    def switch(self, to: str) -> str:
        """Ends the stage that it is in, and returns its name."""
        now, before = time.perf_counter(), self._stage
        self._seconds[before] = self._seconds.get(before, 0.0) + now - self._since
        if self._spans is not None and before != IDLE:
            self._spans.append((before, self._since, now - self._since))
        self._stage, self._since = to, now
        return before

    def take(self) -> dict[str, float]:
        """The seconds in each stage since the last call."""
        self.switch(self._stage)
        taken, self._seconds = self._seconds, {}
        return {name: round(seconds, DIGITS) for name, seconds in taken.items()}

    def take_spans(self) -> list[Span]:
        """The same stage by stage, each with its start, if the clock is traced. Idle time has none."""
        taken = self._spans or []
        self._spans = None if self._spans is None else []
        return taken


class Clocks:
    """The clocks of one worker: as many as it has had shards in hand at once."""

    def __init__(self, traced: bool = False) -> None:
        self._worker, self._began, self._traced = uuid.uuid4().hex[:12], time.perf_counter(), traced
        self._epoch = time.time() - time.perf_counter()
        self._lock, self._free, self._made = Lock(), list[Clock](), 0

    @contextmanager
    def running(self) -> Iterator[Clock]:
        """A clock for the shard that this thread works on now."""
        with self._lock:
            if not self._free:
                self._free.append(Clock(self._made, self._began, self._traced))
                self._made += 1
            clock = self._free.pop()
        token = _clock.set(clock)
        clock.switch(OTHER)
        try:
            yield clock
        finally:
            clock.switch(IDLE)
            _clock.reset(token)
            with self._lock:
                self._free.append(clock)

    def timings(self, clock: Clock) -> dict[str, Any]:
        """What a commit record says: who worked, until when, and the seconds in each stage since the last record."""
        seconds = clock.take()
        ended = round(self._epoch + time.perf_counter(), DIGITS)
        return {"worker": self._worker, "slot": clock.slot, "ended": ended, "stages": seconds}

    def trace(self, clock: Clock) -> dict[str, Any]:
        """What a traced worker gives its driver with each shard: its stages, in seconds since the epoch."""
        spans = [(name, self._epoch + since, seconds) for name, since, seconds in clock.take_spans()]
        return {"worker": self._worker, "pid": os.getpid(), "slot": clock.slot, "spans": spans}


class _Stage:
    """A class, not a generator: it is entered for every row and stage."""

    __slots__ = ("_before", "_clock", "_name")

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        self._clock = _clock.get()
        if self._clock is not None:
            self._before = self._clock.switch(self._name)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._clock is not None:
            self._clock.switch(self._before)


def stage(name: str) -> _Stage:
    """What is done inside the `with` is this stage of `tasks.runs.timings.STAGES`. Nothing may be yielded from it."""
    return _Stage(name)


def each_in(name: str, items: Iterable[Item]) -> Iterator[Item]:
    """The items; making each is this stage."""
    made, end = iter(items), object()
    while True:
        with stage(name):
            item = next(made, end)
        if item is end:
            return
        yield cast(Item, item)


@contextmanager
def exclusive(lock: Lock, name: str) -> Iterator[None]:
    """Waits for a lock, then is in this stage while holding it."""
    with stage("wait"):
        lock.acquire()
    try:
        with stage(name):
            yield
    finally:
        lock.release()
