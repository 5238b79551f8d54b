"""The stages of a worker add up to its time: nothing is counted twice, and nothing is left out."""

from __future__ import annotations

import json
import threading
import time
from itertools import count
from pathlib import Path
from timeit import timeit

import pytest

from tasks.runs.timings import IDLE, OTHER, STAGES, Timings
from tasks.worker.stages import Clocks, each_in, exclusive, stage
from tests import support


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock is a second after the last."""
    monkeypatch.setattr("tasks.worker.stages.time.perf_counter", map(float, count()).__next__)


@pytest.mark.usefixtures("ticks")
def test_a_stage_within_another_interrupts_it_and_all_add_up() -> None:
    clocks = Clocks()  # looks twice
    with clocks.running() as clock:  # idle 2
        with stage("read"):  # other 1
            with stage("decode"):  # read 1
                pass  # decode 1
            with pytest.raises(ValueError, match="broken"), stage("encode"):  # read 1
                raise ValueError("broken")  # encode 1
        assert clock.take() == {IDLE: 2, OTHER: 2, "read": 3, "decode": 1, "encode": 1}
        assert clock.take() == {OTHER: 1}


def test_without_a_clock_nothing_is_timed() -> None:
    with stage("read"):
        assert list(each_in("decode", [1, 2])) == [1, 2]


def test_a_lock_is_waited_for_and_then_held() -> None:
    lock, clocks = threading.Lock(), Clocks()
    lock.acquire()
    threading.Timer(0.05, lock.release).start()
    with clocks.running() as clock, exclusive(lock, "method"):
        time.sleep(0.02)
    assert not lock.locked()
    found = clock.take()
    assert found["wait"] >= 0.04 and 0.02 <= found["method"] < 0.04


def test_a_clock_is_cheap() -> None:
    """Thirteen stages per row: 0.1 ms for the switches of a row would still be too little to matter."""

    def switch() -> None:
        with stage("read"):
            pass

    with Clocks().running():
        assert timeit(switch, number=2000) / 2000 < 50e-6


def test_the_stages_of_a_run_add_up_to_its_workers_time(faulty: str, tmp_path: Path) -> None:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(24))
    trace = tmp_path / "trace.json"
    record = support.finished_run(
        support.make_run(tmp_path, faulty, recogniser="none", options={"seconds": 0.05}, trace=str(trace))
    )
    found = record["timings"]
    assert list(found["stages"]) == list(STAGES) and (found["workers"], found["shards"]) == (1, 6)
    assert sum(found["stages"].values()) == pytest.approx(2 * found["worker_seconds"], rel=0.02, abs=0.02)
    assert found["stages"][OTHER] < 0.2 * found["worker_seconds"]  # on a machine that does other things, too
    assert 6 * 0.05 <= found["stages"]["method"] <= found["worker_seconds"]  # one at a time
    busy = found["stages"]["method"]
    assert found["busy_share"] == pytest.approx(busy / found["worker_seconds"], abs=0.005)  # of milliseconds
    commits = support.read_commits(tmp_path / "dst")
    assert all(commit["timings"]["stages"].keys() <= STAGES.keys() for commit in commits)
    assert not any("trace" in commit for commit in commits)  # it is the driver's, not the run's
    events = json.loads(trace.read_text())
    spans = [event for event in events if event["ph"] == "X"]
    method = sum(event["dur"] for event in spans if event["name"] == "method") / 1e6
    assert method == pytest.approx(found["stages"]["method"], rel=0.01)
    assert {event["tid"] for event in spans} == {0, 1} and {event["name"] for event in spans} <= STAGES.keys()


def test_records_without_timings_are_not_counted() -> None:
    """Those of earlier versions."""
    timings = Timings()
    timings.add({"rows": 4})
    assert timings.to_json() is None


def test_the_time_after_a_slots_last_shard_is_idle() -> None:
    timings = Timings()
    for slot, ended, method in ((0, 110.0, 10.0), (1, 104.0, 4.0)):
        timings.add({"timings": {"worker": "w", "slot": slot, "ended": ended, "stages": {"method": method}}})
    found = timings.to_json()
    assert found is not None and found["worker_seconds"] == 10
    assert found["stages"]["method"] == 14 and found["stages"][IDLE] == 6


def test_workers_that_follow_each_other_are_not_counted_as_workers_at_once() -> None:
    timings = Timings()
    for worker, ended, seconds in (("a", 110.0, 10.0), ("b", 120.0, 10.0), ("c", 119.0, 14.0)):
        timings.add({"timings": {"worker": worker, "slot": 0, "ended": ended, "stages": {"method": seconds}}})
    found = timings.to_json()
    assert found is not None and (found["workers"], found["most_workers"]) == (3, 2)
