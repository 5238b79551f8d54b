"""A row on its way through a worker's stages, and the results of a shard's rows."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from bfr_models.errors import RowError
from bfr_models.pixels import Uint8Image
from tasks.worker.decide import Decision
from tasks.worker.framing import Crop
from tasks.worker.open_rows import Face, OpenRow
from tasks.worker.output import Done
from tasks.worker.read_shard import Row, ShardInput


class StoppedError(Exception):
    """The worker was told to stop; the shard in progress is not committed."""


class Results:
    """Collects the rows of one shard, in any order. Its first error ends all of them."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._changed = threading.Condition()
        self._done, self._pending, self._error = list[Done](), 0, BaseException()
        self._failed = False

    @property
    def is_over(self) -> bool:
        """Whether what is still under way is of no use."""
        return self._failed or self._stop.is_set()

    def expect(self) -> None:
        """Counts a row that is going to end."""
        with self._changed:
            self._pending += 1

    def fail(self, error: BaseException) -> None:
        with self._changed:
            if not self._failed:
                self._failed, self._error = True, error

    def end(self, done: Done | None) -> None:
        """Takes a row that was expected; None if it was abandoned."""
        with self._changed:
            self._done += [] if done is None else [done]
            self._pending -= 1
            self._changed.notify()

    def wait(self) -> list[Done]:
        """All rows, once the last one that was expected has ended. Raises the shard's error, if there is one, and
        StoppedError if the worker was stopped."""
        with self._changed:
            self._changed.wait_for(lambda: not self._pending)
        if self._failed:
            raise self._error
        if self._stop.is_set():
            raise StoppedError("the worker was told to stop")
        return self._done


@dataclass(eq=False)
class FaceInFlight:
    """A face between its detection and its scores. What a stage has made is let go once the next has used it."""

    face: Face
    crop: Crop | None = None
    restored: Tensor | None = None  # (3, size, size) in [-1, 1]
    lq: Uint8Image | None = None  # the crop's pixels
    decision: Decision | None = None
    written: Uint8Image | None = None  # at the method's size


@dataclass(eq=False)
class RowInFlight:
    """A row, from its encoded image to its result."""

    source: ShardInput
    row: Row
    results: Results
    size: int  # bytes
    is_large: bool
    is_last: bool = False  # of those that are restored together: of its shard, or before a large one
    opened: OpenRow | None = None
    faces: list[FaceInFlight] = field(default_factory=list)
    composed: Uint8Image | None = None
    done: Done | None = None

    @property
    def image(self) -> OpenRow:
        assert self.opened is not None, "a row that does not decode is over"
        return self.opened

    @property
    def is_over(self) -> bool:
        return self.done is not None or self.results.is_over

    def fail(self, error: BaseException) -> None:
        self.results.fail(error)

    def reject(self, error: RowError) -> None:
        self.done = Done(self.row.failed(error))


def all_faces(rows: Sequence[RowInFlight]) -> list[tuple[RowInFlight, FaceInFlight]]:
    """The faces of some rows that are still to be restored or scored."""
    return [(row, one) for row in rows for one in row.faces]
