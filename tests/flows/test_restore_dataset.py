"""The recipe under a real Prefect API, and without one."""

from __future__ import annotations

import socket
import time
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.settings import (
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    temporary_settings,
)

from bfr_models.errors import BfrError, UsageError
from flows import restore_dataset as recipe
from tasks.config.restore import RestoreRun
from tests import support

# With the server's time on a busy machine.
post = partial(httpx.post, timeout=120)


@pytest.fixture
def run(tmp_path: Path) -> RestoreRun:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(12))
    return support.make_run(tmp_path)


def flow_run(server: str, run: RestoreRun, tasks: int) -> tuple[str, list[dict[str, Any]]]:
    """The final state of a run in Prefect, and its task runs in order, once that many have arrived."""
    mine = {"flow_runs": {"name": {"any_": [f"{run.method} of {run.source}"]}}}
    (flow,) = post(f"{server}/flow_runs/filter", json=mine).json()
    deadline = time.monotonic() + 240
    while True:  # task runs are recorded a moment later
        found = post(f"{server}/task_runs/filter", json=mine | {"sort": "EXPECTED_START_TIME_ASC"}).json()
        ended = [task for task in found if task["state_name"] in ("Completed", "Failed", "Crashed")]
        if len(ended) >= tasks or time.monotonic() > deadline:
            return flow["state_name"], found
        time.sleep(0.2)


def test_a_run_leaves_a_completed_flow_run_with_its_phases(
    prefect_server: str, run: RestoreRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "SHARDS_PER_SLICE", 2)
    record = recipe.restore_dataset(run)
    state, tasks = flow_run(prefect_server, run, tasks=5)
    assert state == "Completed"
    assert [task["name"] for task in tasks] == [
        "resolve",
        "plan",
        "passthrough-slice-0",
        "passthrough-slice-1",
        "finish",
    ]
    assert {task["state_name"] for task in tasks} == {"Completed"}
    assert not any(task["tags"] for task in tasks)  # each would cost a call of the server before each phase
    assert record == support.read_record(Path(run.destination))
    support.assert_whole(Path(run.destination), 12)


def test_an_error_of_ours_fails_the_flow_run_at_once(prefect_server: str, run: RestoreRun) -> None:
    wrong = run.model_copy(update={"column": "picture"})
    with pytest.raises(UsageError, match="image column 'picture'"):
        recipe.restore_dataset_with_fallback(wrong)
    state, (resolve,) = flow_run(prefect_server, wrong, tasks=1)
    assert (state, resolve["state_name"], resolve["run_count"]) == ("Failed", "Failed", 1)


def test_trouble_that_may_pass_is_tried_again(
    prefect_server: str, run: RestoreRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finish, failures = recipe.finish_run, [OSError("the store is busy")]

    def busy_once(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return finish(*arguments)

    monkeypatch.setattr("flows.orchestration.phases.RETRY_DELAYS", [0])
    monkeypatch.setattr(recipe, "finish_run", busy_once)
    assert recipe.restore_dataset_with_fallback(run)["totals"]["restored"] == 12
    _, tasks = flow_run(prefect_server, run, tasks=4)
    assert {task["name"]: task["run_count"] for task in tasks} == {
        "resolve": 1,
        "plan": 1,
        "passthrough-slice-0": 1,
        "finish": 2,
    }
    assert "without it" not in capsys.readouterr().err


@pytest.mark.usefixtures("prefect_server")
def test_trouble_that_does_not_pass_is_not_blamed_on_prefect(
    run: RestoreRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any) -> Any:
        raise KeyError("a bug")

    monkeypatch.setattr("flows.orchestration.phases.RETRY_DELAYS", [0])
    monkeypatch.setattr(recipe, "plan_shards", broken)
    with pytest.raises(KeyError, match="a bug"):
        recipe.restore_dataset_with_fallback(run)
    assert "without it" not in capsys.readouterr().err


@pytest.mark.parametrize("answers", [False, True], ids=["refused", "never answered"])
def test_without_a_prefect_api_the_run_finishes_all_the_same(
    answers: bool, run: RestoreRun, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if answers:
            server.listen()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/api"
        impatient = {PREFECT_API_URL: url, PREFECT_API_REQUEST_TIMEOUT: 1, PREFECT_CLIENT_MAX_RETRIES: 0}
        with temporary_settings(impatient):
            began = time.monotonic()
            record = recipe.restore_dataset_with_fallback(run)
    assert time.monotonic() - began < 120
    assert record["totals"]["restored"] == 12
    assert "Prefect failed (RuntimeError: Failed to reach API" in caplog.text


def test_without_prefect_an_error_of_ours_is_itself(run: RestoreRun) -> None:
    with pytest.raises(BfrError, match="image column"):
        recipe.restore_without_prefect(run.model_copy(update={"column": "picture"}))
