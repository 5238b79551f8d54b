"""Where a worker's time goes: nothing is counted twice, and its accelerator works, waits, or is idle."""

from __future__ import annotations

import json
import threading
import time
from itertools import count
from pathlib import Path
from timeit import timeit
from typing import Any

import pytest

from tasks.runs.timings import STAGES, Timings
from tasks.worker.pipeline import turn
from tasks.worker.stages import Clocks, stage
from tests import support


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock is a second after the last."""
    monkeypatch.setattr("tasks.worker.stages.time.perf_counter", map(float, count()).__next__)


@pytest.mark.usefixtures("ticks")
def test_a_stage_within_another_interrupts_it() -> None:
    with Clocks().running("thread") as clock:
        with stage("read"):
            with stage("decode"):  # read 1
                pass  # decode 1
            with stage(None):  # read 1
                pass
            with pytest.raises(ValueError, match="broken"), stage("encode"):  # read 1
                raise ValueError("broken")  # encode 1
        assert clock.take() == {"read": 4, "decode": 1, "encode": 1}
        assert clock.take() == {}


def test_without_a_clock_nothing_is_timed() -> None:
    with stage("read"), stage(None):
        pass


def test_the_accelerator_works_or_waits_or_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("tasks.worker.stages.time.perf_counter", lambda: now[0])
    lock = threading.Lock()

    class Taken:
        """A lock that takes fifty seconds to get."""

        release = staticmethod(lock.release)

        def acquire(self) -> None:
            now[0] += 50
            lock.acquire()

    clocks = Clocks()
    now[0] += 20
    with clocks.in_hand(), stage("read"):
        now[0] += 3
        with turn(Taken()), stage("method"):  # type: ignore[arg-type]
            now[0] += 7
    found = clocks.timings()
    assert not lock.locked()
    assert found["stages"] == {"idle": 20, "read": 3, "method": 7, "wait": 53}
    assert found["ended"] - found["began"] == pytest.approx(80, abs=1e-4)
    assert clocks.timings()["began"] == found["ended"]


def test_a_clock_is_cheap() -> None:
    """Ten stages per row: 0.1 ms for the switches of a row would still be too little to matter."""

    def switch() -> None:
        with stage("read"):
            pass

    with Clocks().running("thread"):
        assert timeit(switch, timer=time.thread_time, number=2000) / 2000 < 50e-6  # whatever else the machine does


def test_the_stages_of_a_run_are_those_of_its_workers(faulty: str, tmp_path: Path) -> None:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(24))
    trace = tmp_path / "trace.json"
    record = support.finished_run(
        support.make_run(tmp_path, faulty, recogniser="none", options={"seconds": 0.05}, trace=str(trace))
    )
    found, stages = record["timings"], record["timings"]["stages"]
    assert list(stages) == list(STAGES) and (found["workers"], found["shards"]) == (1, 6)
    accelerator = stages["method"] + stages["wait"] + stages["idle"]
    assert accelerator == pytest.approx(found["worker_seconds"], abs=0.01)
    assert 6 * 0.05 <= stages["method"] <= found["worker_seconds"]  # a batch does not go beyond its shard
    assert found["busy_share"] == pytest.approx(stages["method"] / found["worker_seconds"], abs=0.005)
    assert min(stages[name] for name in ("read", "decode", "align", "judge", "score", "encode", "write")) > 0
    commits = support.read_commits(tmp_path / "dst")
    assert all(commit["timings"]["stages"].keys() <= STAGES.keys() for commit in commits)
    assert not any("trace" in commit for commit in commits)  # it is the driver's, not the run's
    events = json.loads(trace.read_text())
    spans = [event for event in events if event["ph"] == "X"]
    method = sum(event["dur"] for event in spans if event["name"] == "method") / 1e6
    assert method == pytest.approx(stages["method"], rel=0.01)
    threads = {event["args"]["name"]: event["tid"] for event in events if event["name"] == "thread_name"}
    assert {name.partition(" ")[0] for name in threads} == {"codecs", "accelerator", "shard"}
    assert {event["tid"] for event in spans} == set(threads.values())
    assert {event["name"] for event in spans} <= STAGES.keys()


@pytest.mark.parametrize(
    "earlier", [{}, {"timings": {"worker": "w", "slot": 0, "ended": 1.0, "stages": {"method": 1}}}]
)
def test_records_of_earlier_versions_are_not_counted(earlier: dict[str, Any]) -> None:
    timings = Timings()
    timings.add({"rows": 4} | earlier)
    assert timings.to_json() is None


def test_workers_are_busy_for_their_share_of_all_their_time() -> None:
    timings = Timings()
    for worker, began, ended, method in (("a", 100, 104, 4.0), ("a", 104, 110, 4.0), ("b", 100, 110, 2.0)):
        stages = {"method": method, "wait": ended - began - method, "idle": 0.0}
        timings.add({"timings": {"worker": worker, "began": began, "ended": ended, "stages": stages}})
    found = timings.to_json()
    assert found is not None and found["worker_seconds"] == 20 and found["busy_share"] == 0.5
    assert found["stages"]["method"] == found["stages"]["wait"] == 10


def test_workers_that_follow_each_other_are_not_counted_as_workers_at_once() -> None:
    timings = Timings()
    for worker, began, ended in (("a", 100, 110), ("b", 110, 120), ("c", 105, 119)):
        timings.add({"timings": {"worker": worker, "began": began, "ended": ended, "stages": {"method": 1.0}}})
    found = timings.to_json()
    assert found is not None and (found["workers"], found["most_workers"]) == (3, 2)


def test_the_time_in_which_there_was_a_worker_is_that_of_all_calls_together() -> None:
    timings = Timings()
    for worker, began, ended in (("late", 500, 520), ("a", 100, 110), ("b", 105, 115), ("c", 106, 108)):
        timings.add({"timings": {"worker": worker, "began": began, "ended": ended, "stages": {"method": 1.0}}})
    found = timings.to_json()
    assert found is not None and found["work_seconds"] == 15 + 20
