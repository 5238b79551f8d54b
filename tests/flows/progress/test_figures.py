"""What a run tells of itself while it works: its figures, and their form for Prometheus."""

from __future__ import annotations

import json
import re
import socket
import time
import urllib.request

import pytest

from flows.progress.figures import RunFigures
from flows.progress.metrics import metrics_endpoint
from flows.progress.run_progress import RunProgress
from tests.support import ROOT, free_ports

RECORD = {
    "rows": 4, "rejected": 1, "rejects": {"undecodable": 1}, "faces": 5, "accelerator_seconds": 0.5,
    "outcomes": {"restored": 2, "corrected": 1, "kept_original: no gain expected": 2},
}  # fmt: skip


def figures() -> RunFigures:
    """Those of a run of 100 rows of which 20 were done before, after two shards."""
    found = RunFigures("difface", "/restored", 100, 20, workers=lambda: (5, 8))
    found.add(RECORD)
    found.add(RECORD)
    return found


def asked(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=120) as answer:
        return str(answer.read().decode())


def test_a_line_says_what_became_of_the_faces_and_who_works() -> None:
    text = RunProgress(figures()).text(0.0)
    assert text.startswith("28/100 rows, ") and " left; " in text
    assert "10 faces: 4 restored, 2 corrected, 4 kept original; 2 rows rejected; 5 of 8 workers, accelerator" in text
    assert text.endswith(" -> /restored")


def test_rates_are_those_of_this_process_and_nothing_is_left_at_the_end() -> None:
    found = figures()
    found._seen[0] = (time.monotonic() - 100, 20, 0.0)  # so long ago that it does not matter when one looks
    assert found.seconds_left == pytest.approx(72 / found.rows_per_second, rel=0.05)
    found.add({**RECORD, "rows": 72})
    assert found.seconds_left is None and found.done == 100 and "left" not in found.pace


def test_before_the_first_shard_nothing_is_guessed() -> None:
    found = RunFigures("difface", "/restored", 100, 0, workers=lambda: (0, 2))
    assert (found.seconds_left, found.busy) == (None, None)
    assert found.crew == "0 of 2 workers"


def test_prometheus_reads_the_figures() -> None:
    port = free_ports(1)
    with metrics_endpoint(figures(), port, "127.0.0.1"):
        told = asked(port)
    assert 'bfr_run_info{destination="/restored",method="difface"} 1.0' in told
    for line in (
        "bfr_run_rows 100.0", "bfr_run_rows_done 28.0", "bfr_rows_total 8.0", "bfr_shards_total 2.0",
        "bfr_workers_ready 5.0", "bfr_workers_wanted 8.0", "bfr_accelerator_seconds_total 1.0",
        'bfr_faces_total{outcome="kept_original"} 4.0', 'bfr_rejected_rows_total{code="undecodable"} 2.0',
    ):  # fmt: skip
        assert f"\n{line}\n" in told, line
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), 1)


def test_a_port_that_is_taken_does_not_end_the_run(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with metrics_endpoint(figures(), taken.getsockname()[1], "127.0.0.1"):
            pass
    assert "the run goes on without: use another --metrics-port" in caplog.text


def test_the_dashboard_asks_for_figures_that_there_are() -> None:
    port = free_ports(1)
    with metrics_endpoint(figures(), port, "127.0.0.1"):
        known = set(re.findall(r"^(bfr_\w+)", asked(port), re.MULTILINE))
    dashboard = json.loads((ROOT / "infra/monitoring/dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    wanted = {name for query in queries for name in re.findall(r"\b(bfr_\w+)", query)}
    assert len(wanted) >= 6 and wanted <= known
