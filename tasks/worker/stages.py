"""Where the time of a worker goes: each of its threads has a clock, which is in at most one stage at any moment.

Code says what it does by `with stage("decode"):`; a stage within another interrupts it. Switching costs about a
microsecond, so that it is always on. Without a clock, `stage` does nothing. The seconds of the stages are those of all
threads; how long the worker as a whole had nothing to do, and how long its accelerator waited, is told beside them.
"""

from __future__ import annotations

import os
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from threading import Lock
from types import TracebackType
from typing import Any

from tasks.runs.timings import IDLE, METHOD, WAIT, Span

DIGITS = 5  # of seconds

_clock: ContextVar[Clock | None] = ContextVar("clock", default=None)


class Clock:
    """The clock of one thread. It may be asked by another."""

    def __init__(self, traced: bool) -> None:
        self._stage: str | None = None
        self._since = time.perf_counter()
        self._seconds, self._spans = defaultdict[str, float](float), list[tuple[str, float, float]]()
        self._traced, self._lock = traced, Lock()

    def switch(self, to: str | None) -> str | None:
        """Ends the stage that it is in, and returns its name; None between stages."""
        with self._lock:
            before = self._stage
            self._count(time.perf_counter())
            self._stage = to
            return before

    def take(self) -> dict[str, float]:
        """The seconds in each stage since the last call."""
        with self.stopped() as up_to:
            return up_to(time.perf_counter())

    @contextmanager
    def stopped(self) -> Iterator[Callable[[float], dict[str, float]]]:
        """It is in one stage meanwhile; gives what takes the seconds in each stage up to a moment of that time."""

        def up_to(now: float) -> dict[str, float]:
            self._count(now)
            taken, self._seconds = self._seconds, defaultdict(float)
            return taken

        with self._lock:
            yield up_to

    def _count(self, now: float) -> None:
        """Adds the time up to now to the stage that it is in; a span that goes on is cut in two."""
        if self._stage is not None:
            self._seconds[self._stage] += now - self._since
            if self._traced:
                self._spans.append((self._stage, self._since, now - self._since))
        self._since = now

    def take_spans(self) -> list[tuple[str, float, float]]:
        """(stage, start, seconds) of each stage that has ended, if the clock is traced."""
        with self._lock:
            taken, self._spans = self._spans, []
            return taken


class Clocks:
    """The clocks of one worker's threads."""

    def __init__(self, traced: bool = False) -> None:
        self._worker, self._traced = uuid.uuid4().hex[:12], traced
        self._epoch = time.time() - time.perf_counter()
        self._taken = self._rested = time.perf_counter()
        self._idle, self._in_hand = 0.0, 0
        self._lock, self._clocks, self._free = Lock(), dict[str, list[Clock]](), dict[str, list[Clock]]()

    @contextmanager
    def running(self, name: str) -> Iterator[Clock]:
        """A clock for this thread; threads of one name at the same time have one each."""
        with self._lock:
            free = self._free.setdefault(name, [])
            if not free:
                free.append(Clock(self._traced))
                self._clocks.setdefault(name, []).append(free[-1])
            clock = free.pop()
        token = _clock.set(clock)
        try:
            yield clock
        finally:
            clock.switch(None)
            _clock.reset(token)
            with self._lock:
                self._free[name].append(clock)

    @contextmanager
    def in_hand(self) -> Iterator[None]:
        """A shard is in the worker's hands, and this thread's clock runs; without any, the worker is idle."""
        with self._lock:
            self._idle += self._rest(time.perf_counter()) if not self._in_hand else 0.0
            self._in_hand += 1
        try:
            with self.running("shard"):
                yield
        finally:
            with self._lock:
                self._in_hand -= 1
                self._rested = time.perf_counter()

    def timings(self) -> dict[str, Any]:
        """What a commit record says: who worked, from when to when, and the seconds in each stage, since the last
        record. Of that time the accelerator worked, waited, or was idle."""
        with self._lock, ExitStack() as stopped:
            clocks = [stopped.enter_context(clock.stopped()) for same in self._clocks.values() for clock in same]
            now = time.perf_counter()  # for all of them: else a thread that is held up counts more than there was
            idle, self._idle = self._idle + (0.0 if self._in_hand else self._rest(now)), 0.0
            began, self._taken = self._taken, now
            seconds = defaultdict[str, float](float)
            for up_to in clocks:
                for name, more in up_to(now).items():
                    seconds[name] += more
        seconds[IDLE] = idle
        seconds[WAIT] = max(0.0, now - began - idle - seconds[METHOD])
        return {
            "worker": self._worker,
            "began": round(self._epoch + began, DIGITS),
            "ended": round(self._epoch + now, DIGITS),
            "stages": {name: round(value, DIGITS) for name, value in seconds.items()},
        }

    def trace(self) -> dict[str, Any]:
        """What a traced worker gives its driver with each shard: stages, in seconds since the epoch, and their
        threads."""
        with self._lock:
            clocks = [(f"{name} {i}", clock) for name, same in self._clocks.items() for i, clock in enumerate(same)]
        spans: list[Span] = [
            (name, self._epoch + since, seconds, thread)
            for thread, clock in clocks
            for name, since, seconds in clock.take_spans()
        ]
        return {"worker": self._worker, "pid": os.getpid(), "spans": spans}

    def _rest(self, now: float) -> float:
        """Seconds without a shard, up to now."""
        since, self._rested = self._rested, now
        return now - since


class _Stage:
    """A class, not a generator: it is entered for every row and stage."""

    __slots__ = ("_before", "_clock", "_name")

    def __init__(self, name: str | None) -> None:
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


def stage(name: str | None) -> _Stage:
    """What is done inside the `with` is this stage of `tasks.runs.timings.STAGES`; None: it only waits."""
    return _Stage(name)
