"""A line: what passes through it, in which batches, and how much of it at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from tasks.worker.pipeline import Batch, Lane, Line, Stage
from tasks.worker.stages import Clocks

MANY, ONE = Lane("many", 4), Lane("one", 1)


@dataclass(eq=False)
class Thing:
    number: int
    size: int = 1
    is_large: bool = False
    is_last: bool = False
    is_over: bool = False
    weight: int = 1
    seen: list[str] = field(default_factory=list)
    error: BaseException | None = None

    def fail(self, error: BaseException) -> None:
        self.error, self.is_over = error, True


class Ends:
    """Waits for the things that leave a line."""

    def __init__(self) -> None:
        self.things: list[Thing] = []
        self._changed = threading.Condition()

    def __call__(self, thing: Thing) -> None:
        with self._changed:
            self.things.append(thing)
            self._changed.notify()

    def wait(self, count: int) -> list[Thing]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.things) >= count, 30)
        return self.things


Make = Callable[..., tuple[Line[Thing], Ends]]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes a line of stages that ends with the test."""
    lines = []

    def made(*stages: Stage[Thing], limit: int = 1000) -> tuple[Line[Thing], Ends]:
        ends = Ends()
        lines.append(Line(stages, lambda: limit, ends, Clocks()))
        return lines[-1], ends

    yield made
    for line in lines:
        line.close()


def noting(name: str) -> Callable[[Sequence[Thing]], None]:
    def work(things: Sequence[Thing]) -> None:
        for thing in things:
            thing.seen.append(name)

    return work


def by(size: int) -> Batch[Thing]:
    return Batch(lambda: size, lambda thing: thing.weight, size=lambda: 500)


def test_each_thing_passes_each_stage_in_turn(make: Make) -> None:
    names = {"a": MANY, "b": MANY, "c": ONE, "d": MANY}
    line, ends = make(
        *(Stage(name, noting(name), lane, by(3) if name == "c" else None) for name, lane in names.items())
    )
    for number in range(50):
        line.admit(Thing(number, is_last=number == 49))
    found = ends.wait(50)
    assert sorted(thing.number for thing in found) == list(range(50))
    assert all(thing.seen == list(names) for thing in found)


def test_batches_are_full_and_in_the_order_of_admission_whoever_overtakes(make: Make) -> None:
    """The first one is slow: the others wait for it, not for the batch's size alone."""
    others, batches = threading.Semaphore(0), list[list[int]]()

    def first(things: Sequence[Thing]) -> None:
        for thing in things:
            if thing.number == 0:
                assert all(others.acquire(timeout=30) for _ in range(6))
            others.release()

    def batch(things: Sequence[Thing]) -> None:
        batches.append([thing.number for thing in things])

    line, ends = make(Stage("first", first, MANY), Stage("batch", batch, ONE, by(3)))
    for number in range(8):
        line.admit(Thing(number, is_last=number in (4, 7)))
    ends.wait(8)
    assert batches == [[0, 1, 2], [3, 4], [5, 6, 7]]


def test_a_batch_goes_by_weight(make: Make) -> None:
    batches, go = list[list[int]](), threading.Event()

    def batch(things: Sequence[Thing]) -> None:
        batches.append([thing.weight for thing in things])

    line, ends = make(Stage("hold", lambda things: go.wait(30) and None, ONE), Stage("batch", batch, MANY, by(8)))
    for number, weight in enumerate((4, 3, 0, 2, 20, 8, 0, 1)):
        line.admit(Thing(number, weight=weight, is_last=number == 7))
    go.set()
    ends.wait(8)
    assert batches == [[4, 3, 0], [2], [20], [8], [0, 1]]


def test_a_batch_ends_by_its_bytes_and_before_and_after_a_large_one(make: Make) -> None:
    batches = list[list[int]]()

    def batch(things: Sequence[Thing]) -> None:
        batches.append([thing.number for thing in things])

    line, ends = make(Stage("batch", batch, MANY, by(8)))
    for number, size in enumerate((200, 299, 1, 1, 1)):
        line.admit(Thing(number, size=size, is_large=number == 3, is_last=number in (2, 4)))
    ends.wait(5)
    assert sorted(batches) == [[0, 1, 2], [3], [4]]


def test_things_that_are_over_do_not_wait_for_others(make: Make) -> None:
    line, ends = make(Stage("batch", noting("batch"), ONE, by(8)))
    things = [Thing(number) for number in range(3)]
    for thing in things:
        line.admit(thing)
    for thing in things:
        thing.is_over = True
    line.wake()
    assert len(ends.wait(3)) == 3


def test_what_is_under_way_is_bounded_and_the_large_are_alone(make: Make) -> None:
    """The first three have room side by side, and wait for each other there."""
    most, under_way, lock, together = [0, 0], list[Thing](), threading.Lock(), threading.Barrier(3)

    def come(things: Sequence[Thing]) -> None:
        with lock:
            under_way.extend(things)
            most[0] = max(most[0], sum(thing.size for thing in under_way))
            most[1] = max(most[1], len(under_way) if any(thing.is_large for thing in under_way) else 0)
        if things[0].number < 3:
            together.wait(30)

    def go(things: Sequence[Thing]) -> None:
        with lock:
            for thing in things:
                under_way.remove(thing)

    line, ends = make(
        Stage("come", come, MANY),
        Stage("all", noting("all"), ONE, Batch(lambda: 100, lambda thing: thing.weight, size=lambda: 3)),
        Stage("go", go, MANY),
        limit=9,
    )
    for number in range(30):
        line.admit(Thing(number, size=3, is_large=number % 10 == 5))
    ends.wait(30)
    assert most == [9, 1]


def test_an_error_is_the_things_own_and_it_passes_the_other_stages_untouched(make: Make) -> None:
    def fail(things: Sequence[Thing]) -> None:
        if things[0].number == 1:
            raise ValueError("not this one")

    line, ends = make(Stage("fail", fail, MANY), Stage("b", noting("b"), ONE, by(2)), Stage("c", noting("c"), MANY))
    for number in range(4):
        line.admit(Thing(number, is_last=number == 3))
    found = sorted(ends.wait(4), key=lambda thing: thing.number)
    assert [thing.seen for thing in found] == [["b", "c"], [], ["b", "c"], ["b", "c"]]
    assert isinstance(found[1].error, ValueError)


def test_threads_end_when_the_line_is_closed_and_empty(make: Make) -> None:
    lane, go = Lane("of this test", 3), threading.Event()
    line, ends = make(Stage("hold", lambda things: go.wait(30) and None, lane))
    line.admit(Thing(0))
    line.close()
    threads = [thread for thread in threading.enumerate() if thread.name.startswith(lane.name)]
    assert len(threads) == 3
    go.set()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads) and len(ends.things) == 1
