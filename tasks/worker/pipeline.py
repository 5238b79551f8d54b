"""A line of stages, through which many items pass at once: what one thread did with a row, several do, side by side.

    Line([Stage("decode", decode, CODECS), Stage("method", restore, ACCELERATOR, Batch(...)), ...])

Items come in one after the other and leave after the last stage. What is in between takes a limited number of bytes:
`admit` waits for room, so no queue needs a bound of its own. A lane is a group of threads that several stages share;
each thread takes what has come furthest, so that items leave before new ones come in. Consecutive stages of a lane
follow each other at once, on one thread. A stage with a `Batch` takes the items in the order in which they were
admitted, as many as there are to a batch. Where a batch ends depends on the items alone, never on who came when: a
network may give other last bits with other companions, and a shard that is restored again has to become what it was.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import groupby
from typing import Any, Generic, Protocol, TypeVar

from tasks.worker.stages import Clocks, stage


class Item(Protocol):
    """What passes through a line."""

    @property
    def size(self) -> int:
        """The bytes that it takes meanwhile."""
        ...

    @property
    def is_large(self) -> bool:
        """Whether it has to be alone in the line."""
        ...

    @property
    def is_last(self) -> bool:
        """Whether no batch goes on after it: the last of its shard."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to do: it passes the other stages untouched."""
        ...

    def fail(self, error: BaseException) -> None:
        """Takes what a stage has raised."""
        ...


T = TypeVar("T", bound=Item)


@dataclass(frozen=True)
class Lane:
    """Threads, each of which calls `set_up` when it starts."""

    name: str
    threads: int
    set_up: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Batch(Generic[T]):
    """How many items a stage takes at once: as many as weigh `limit()` together, or a single heavier one; fewer where a
    last or a large item is among them, or where they take `size()` bytes."""

    limit: Callable[[], int]
    weigh: Callable[[T], int]
    size: Callable[[], int]


@dataclass(frozen=True)
class Stage(Generic[T]):
    """`work` on some items, by a thread of the lane. Its name is that of its time (`tasks.runs.timings`)."""

    name: str
    work: Callable[[Sequence[T]], None]
    lane: Lane
    batch: Batch[T] | None = None


@dataclass(eq=False)
class _Section(Generic[T]):
    """Stages that follow each other on one thread, and the items that wait for the first."""

    stages: Sequence[Stage[T]]
    early: list[tuple[int, T]] = field(default_factory=list)  # a heap of those that have overtaken others
    waiting: deque[tuple[int, T]] = field(default_factory=deque)
    arrived: int = 0  # the number of the first item that has not come yet, where the order counts

    @property
    def lane(self) -> Lane:
        return self.stages[0].lane

    def put(self, number: int, item: T) -> None:
        if self.stages[0].batch is None:
            self.waiting.append((number, item))
            return
        heappush(self.early, (number, item))
        while self.early and self.early[0][0] == self.arrived:
            self.waiting.append(heappop(self.early))
            self.arrived += 1

    def take(self) -> list[tuple[int, T]]:
        """What a thread is to do now; nothing if it should wait for more."""
        if (batch := self.stages[0].batch) is None:
            return [self.waiting.popleft()] if self.waiting else []
        return [self.waiting.popleft() for _ in range(self._ready(batch))]

    def _ready(self, batch: Batch[T]) -> int:
        """How many items the next batch has; 0 if it is not full yet."""
        limit, most, weight, size = batch.limit(), batch.size(), 0, 0
        for count, (_, item) in enumerate(self.waiting):
            weight += 0 if item.is_over else batch.weigh(item)
            size += item.size
            if weight > limit and count:
                return count
            if weight >= limit or size >= most or item.is_last or item.is_large:
                return count + 1
        return len(self.waiting) if all(item.is_over for _, item in self.waiting) else 0

    def work(self, items: Sequence[T]) -> None:
        for one in self.stages:
            if alive := [item for item in items if not item.is_over]:
                try:
                    with stage(one.name):
                        one.work(alive)
                except BaseException as error:  # it is the items' owner who has to know
                    for item in alive:
                        item.fail(error)


class Line(Generic[T]):
    """Runs until it is closed. `on_end` gets each item after its last stage, failed or not."""

    def __init__(
        self, stages: Iterable[Stage[T]], limit: Callable[[], int], on_end: Callable[[T], None], clocks: Clocks
    ) -> None:
        """`limit()` is how many bytes of items may be under way."""
        self._sections = [section for same in groupby(stages, key=lambda one: one.lane) for section in _cut(same[1])]
        self._limit, self._on_end, self._clocks = limit, on_end, clocks
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        lanes = dict.fromkeys(section.lane for section in self._sections)
        self._calls = {lane: threading.Condition(self._lock) for lane in lanes}
        self._admitted, self._sizes = 0, dict[int, int]()  # of the items under way, by number
        self._closed = False
        ready = threading.Barrier(1 + sum(lane.threads for lane in lanes))
        for lane in lanes:
            for number in range(lane.threads):
                name = f"{lane.name} {number}"
                threading.Thread(target=self._run, args=(lane, name, ready), name=name, daemon=True).start()
        ready.wait()

    def admit(self, item: T) -> None:
        """Puts an item in, as soon as there is room for it. One thread at a time: items are numbered as they come."""
        with self._lock:
            self._room.wait_for(lambda: item.is_over or self._has_room(item))
            number, self._admitted = self._admitted, self._admitted + 1
            self._sizes[number] = self._size(item)
            self._put(0, number, item)

    def wake(self) -> None:
        """Has the threads look again, when items have become over."""
        with self._lock:
            self._wake_all()

    def close(self) -> None:
        """Ends the threads, once all items are out."""
        with self._lock:
            self._closed = True
            self._wake_all()

    def _wake_all(self) -> None:
        for call in (*self._calls.values(), self._room):
            call.notify_all()

    def _size(self, item: T) -> int:
        return self._limit() if item.is_large else item.size

    def _has_room(self, item: T) -> bool:
        return not self._sizes or sum(self._sizes.values()) + self._size(item) <= self._limit()

    def _put(self, place: int, number: int, item: T) -> None:
        section = self._sections[place]
        section.put(number, item)
        self._calls[section.lane].notify()

    def _run(self, lane: Lane, name: str, ready: threading.Barrier) -> None:
        lane.set_up()
        ready.wait()
        with self._clocks.running(name):
            while (work := self._next(lane)) is not None:
                place, items = work
                self._sections[place].work([item for _, item in items])
                self._pass_on(place, items)

    def _next(self, lane: Lane) -> tuple[int, list[tuple[int, T]]] | None:
        own = [place for place, section in enumerate(self._sections) if section.lane is lane]
        with self._lock:
            while self._sizes or not self._closed:
                for place in reversed(own):
                    if items := self._sections[place].take():
                        return place, items
                self._calls[lane].wait()
        return None

    def _pass_on(self, place: int, items: Sequence[tuple[int, T]]) -> None:
        is_last = place + 1 == len(self._sections)
        if is_last:
            for _, item in items:
                self._on_end(item)
        with self._lock:
            for number, item in items:
                if not is_last:
                    self._put(place + 1, number, item)
                else:
                    del self._sizes[number]
            if is_last:
                self._room.notify_all()
            if self._closed and not self._sizes:
                self._wake_all()


def _cut(stages: Iterator[Stage[Any]]) -> Iterator[_Section[Any]]:
    """The sections of consecutive stages of one lane: a stage with batches starts a new one."""
    section: list[Stage[Any]] = []
    for one in stages:
        if one.batch is not None and section:
            yield _Section(section)
            section = []
        section.append(one)
    yield _Section(section)


@contextmanager
def turn(lock: threading.Lock) -> Iterator[None]:
    """Holds a lock; what it waits for it is no stage."""
    with stage(None):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
