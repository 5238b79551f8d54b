"""A worker's warnings reach the run's log, once each and bounded in number."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator

import pytest

from tasks.engine.worker_log import KEPT, WorkerLog, relay


@pytest.fixture
def log() -> Iterator[WorkerLog]:
    log = WorkerLog()
    yield log
    logging.getLogger().removeHandler(log)
    logging.captureWarnings(False)


def test_warnings_are_taken_once_and_say_where_they_come_from(log: WorkerLog, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("some.library").warning("%s is slow", "the disk")
    logging.getLogger("some.library").warning("%s is slow", "the disk")
    logging.getLogger("some.library").info("all is well")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("the fan is loud", stacklevel=1)
    slow, loud = log.take()
    assert slow[1].endswith(f"process {os.getpid()}: the disk is slow") and "the fan is loud" in loud[1]
    assert log.take() == []
    caplog.clear()
    relay([slow])
    (record,) = caplog.records
    assert (record.name.partition(".")[0], record.levelname, record.message) == ("tasks", "WARNING", slow[1])


def test_of_a_storm_the_last_lines_stay(log: WorkerLog) -> None:
    for number in range(10 * KEPT):
        logging.getLogger("storm").error("line %d", number)
    lines = log.take()
    assert len(lines) == KEPT and lines[-1][1].endswith(f"line {10 * KEPT - 1}")
