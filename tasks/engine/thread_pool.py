"""A pool of one worker, in threads of this process."""

from __future__ import annotations

import traceback
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial

from tasks.engine.pool import IN_HAND, STOP_SECONDS, Outcome, cannot_load
from tasks.runs.commits import Record
from tasks.worker.daemon_threads import DaemonThreads
from tasks.worker.job import Job, Order


class ThreadPool:
    """One worker in this process, for tests and for machines without Ray.

    A thread cannot be killed: a method that hangs hangs until the process is ended, and a crash of the method ends the
    run.
    """

    waiting_room = 8

    def __init__(self, job: Job) -> None:
        from tasks.worker.shard_worker import ShardWorker  # imports torch, which the driver of Ray actors must not

        self._worker = ShardWorker(job)
        try:
            self._worker.load()
        except Exception as error:
            raise cannot_load(job, error) from error
        self._threads = DaemonThreads[Record | None](IN_HAND)
        self._in_hand: dict[Future[Record | None], Order] = {}

    def resize(self, left: int) -> None:
        pass  # it is one worker, for as long as it lives

    def free_slots(self) -> int:
        return max(0, IN_HAND - len(self._in_hand))

    def idle_workers(self) -> int:
        return int(not self._in_hand)

    def workers(self) -> tuple[int, int]:
        return 1, 1

    def submit(self, order: Order) -> None:
        self._in_hand[self._threads.submit(partial(self._worker.run, order))] = order

    def forget(self, order: Order) -> None:
        pass  # it ends by itself

    def poll(self, timeout: float) -> list[Outcome]:
        done, _ = wait(self._in_hand, timeout, return_when=FIRST_COMPLETED)
        return [_outcome(self._in_hand.pop(future), future) for future in done]

    def check(self) -> None:
        pass  # its threads die with this process, not before

    def close(self) -> None:
        self._worker.close()
        self._threads.close(STOP_SECONDS)


def _outcome(order: Order, future: Future[Record | None]) -> Outcome:
    if (error := future.exception()) is None:
        return Outcome(order, record=future.result())
    link: BaseException | None = error
    while link is not None:  # their frames hold the shard's pictures, and a shard that is set aside is kept
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__
    return Outcome(order, error=error)
