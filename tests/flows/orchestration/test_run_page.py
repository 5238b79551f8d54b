"""What Prefect's pages show of a run, and that showing it never fails the run."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import flow

from bfr_models.errors import UsageError
from flows import restore_dataset as recipe
from flows.orchestration import run_page as page
from tests import support

# With the server's time on a busy machine.
post = partial(httpx.post, timeout=120)


def about(server: str, name: str, what: str) -> list[dict[str, Any]]:
    """Logs or artifacts of the flow run of that name."""
    (run,) = post(f"{server}/flow_runs/filter", json={"flow_runs": {"name": {"any_": [name]}}}).json()
    mine = {"logs": {"flow_run_id": {"any_": [run["id"]]}}} if what == "logs" else {
        "flow_runs": {"id": {"any_": [run["id"]]}}
    }  # fmt: skip
    found: list[dict[str, Any]] = post(f"{server}/{what}/filter", json=mine).json()
    return found


def logged(server: str, name: str, part: str) -> bool:
    """Whether a line with this in it is in the run's log, which is sent in batches."""
    deadline = time.monotonic() + 240
    while not any(part in line["message"] for line in about(server, name, "logs")):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.3)
    return True


def event(server: str, name: str, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The event of that name that fits, once it has arrived; the server is the session's, other runs' are there too."""
    deadline = time.monotonic() + 240
    asked = {"filter": {"event": {"name": [name]}}}
    while True:
        for found in post(f"{server}/events/filter", json=asked).json()["events"]:
            if fits(found):
                return dict(found)
        assert time.monotonic() < deadline, f"no event {name}"
        time.sleep(0.3)


@pytest.mark.usefixtures("faulty", "ray_cluster")
def test_a_run_leaves_three_artifacts_and_its_workers_lines(prefect_server: str, tmp_path: Path) -> None:
    names = ["a", "b-warns", "c-raises", "d"]
    rows = [{"id": name, **row} for name, row in zip(names, support.make_rows(4), strict=True)]
    support.write_parquet(tmp_path / "src" / "a.parquet", rows, group_rows=2)
    run = support.make_run(
        tmp_path, "faulty", engine="ray", recogniser="none", shard_rows=2, batch_size=1, gpus_per_actor=0
    )
    recipe.restore_dataset(run)
    name = f"faulty of {run.source}"
    artifacts = {found["type"]: found for found in about(prefect_server, name, "artifacts")}
    assert len(artifacts) == len(about(prefect_server, name, "artifacts")) == 3
    assert artifacts["progress"]["data"] == 100
    measures = {row["measure"]: row for row in json.loads(artifacts["table"]["data"])}
    assert measures["psnr"]["mean"] is None and measures["psnr"]["why"]
    assert "# 4 rows through faulty" in artifacts["markdown"]["data"]
    assert f"({'file://' + run.destination}/report/index.html)" in artifacts["markdown"]["data"]
    assert artifacts["markdown"]["key"].startswith("summary-") and artifacts["markdown"]["key"].endswith("-dst")
    for part in ("the fan is loud", "1 of 2 rows rejected: {'method_failed': 1}"):
        assert logged(prefect_server, name, part)
    degraded = event(prefect_server, page.DEGRADED, lambda it: str(tmp_path) in it["resource"]["address"])
    assert (degraded["payload"]["rows"], degraded["payload"]["rejected"]) == (4, 1)
    assert degraded["resource"]["prefect.resource.id"].endswith("-dst")


def test_the_summary_has_the_figures_there_are(tmp_path: Path) -> None:
    """For a run with ground truth and without a recogniser."""
    rows = [row | {"gt": row["image"]} for row in support.make_rows(2)]
    support.write_parquet(tmp_path / "src" / "a.parquet", rows)
    record = recipe.restore_without_prefect(support.make_run(tmp_path, gt_column="gt", recogniser="none"))
    figures = [line for line in page._summary(record).splitlines() if line.startswith("|")]
    measures = {line.split(" | ")[0].removeprefix("| "): line for line in figures[2:]}
    ssim = record["statistics"]["ssim"]
    assert measures["ssim"].split(" | ")[1] == str(round(ssim["mean"], 4)) and measures["ssim"].endswith("| 2 |")
    assert "identity_similarity" not in measures


def test_a_failure_is_an_event(prefect_server: str, tmp_path: Path) -> None:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(1))
    with pytest.raises(UsageError):
        recipe.restore_dataset(support.make_run(tmp_path, column="picture"))
    failed = event(prefect_server, page.FAILED, lambda it: str(tmp_path) in it["resource"]["address"])
    assert "expected" in failed["payload"]["message"]


def test_nothing_of_it_can_fail_a_run(prefect_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise OSError("no such API")

    for name in ("emit_event", "create_markdown_artifact", "create_table_artifact", "create_progress_artifact"):
        monkeypatch.setattr(page, name, broken)

    @flow
    def fragile() -> str:
        with page.ProgressArtifact("x", 10, 0) as progress:
            progress.advance(1)
        page.announce(page.SWITCHED, "/dst", {})
        page.show_record({"arguments": {"destination": "/dst"}, "statistics": {}})
        return "done"

    assert fragile() == "done"


def test_outside_of_a_flow_run_nothing_is_shown() -> None:
    before = list(logging.getLogger("tasks").handlers)
    page.announce(page.SWITCHED, "/dst", {})
    with page.relay_worker_logs(), page.ProgressArtifact("x", 10, 0) as progress:
        progress.advance(1)
        assert logging.getLogger("tasks").handlers == before


def test_a_storm_of_lines_is_bounded_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []

    class RunLogger:
        def log(self, _level: int, form: str, *arguments: Any) -> None:
            taken.append(form % arguments)

        def warning(self, form: str, *arguments: Any) -> None:
            taken.append(form % arguments)

    handler = page._RunLog(RunLogger())
    line = logging.LogRecord("tasks.x", logging.WARNING, "", 0, "s3://user:secret@host/x is slow", None, None)
    for _ in range(100):
        handler.emit(line)
    assert taken == ["s3://host/x is slow"] * page.LINES
    monkeypatch.setattr(page, "LINES_SECONDS", -1.0)
    handler.emit(line)
    assert taken[page.LINES] == "70 more lines of workers were left out"
