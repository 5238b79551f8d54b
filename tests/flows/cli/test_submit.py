"""`bfr submit` on a real Ray head with its dashboard: handed in, followed, listed, stopped, and no secret anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import Result
from typer.testing import CliRunner

from flows.cli.app import app
from tasks.config.environment import prepare_environment
from tasks.engine.ray_token import prepare_token
from tests import support

pytestmark = pytest.mark.usefixtures("signals")
OF_THE_LAPTOP, OF_THE_CLUSTER = "secret-key-of-the-laptop", "secret-key-of-the-cluster"


def submit(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["submit", *map(str, arguments)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected one of COMMAND, --list, --status JOB, --logs JOB and --stop JOB, found 0"),
        (("--list", "--stop", "x"), "found 2"),
        (("restore", "s3://in", "s3://out", "--methud", "difface"), "No such option"),
        (("restaure", "s3://in"), "No such command"),
        (("review", "s3://out"), "expected a command that runs by itself, found `bfr review`"),
        (("verify", "s3://me:hush@host/out"), "expected addresses without user, password and signature"),
        (("fid", "https://host/a.npz?sig=hush", "b"), "let the cluster's nodes have the keys"),
        (("verify", "s3://out"), "expected RAY_API_SERVER_ADDRESS to name a cluster's dashboard"),
    ],
)
def test_a_mistake_is_told_here(
    arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    found = submit(*arguments)
    said = " ".join((found.stderr or found.output).replace("│", " ").split())
    assert found.exit_code == 2 and message in said, said
    assert "hush" not in found.output


def test_a_cluster_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://me:hush@127.0.0.1:9")
    found = submit("verify", "s3://out")
    assert found.exit_code == 2 and "expected a Ray dashboard at http://127.0.0.1:9" in found.stderr
    assert "RAY_AUTH_TOKEN" in found.stderr and "hush" not in found.output


@pytest.fixture(scope="module")
def head(plugin_path: str) -> Iterator[Path]:
    """A Ray head with a dashboard, which asks for a token; the folder of its logs."""
    prepare_environment()
    prepare_token()
    first = support.free_ports(40)
    outside = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER")}
    nobody = "http://127.0.0.1:9/api"  # without Prefect, whose server takes its time to start
    outside |= {"PYTHONPATH": plugin_path, "PREFECT_API_URL": nobody, "AWS_SECRET_ACCESS_KEY": OF_THE_CLUSTER}
    outside["PATH"] = f"{Path(sys.executable).parent}:{outside['PATH']}"  # where `bfr` is
    with tempfile.TemporaryDirectory(prefix="bfr-", ignore_cleanup_errors=True) as folder:
        command = [Path(sys.executable).with_name("ray"), "start", "--head", "--block", "--node-ip-address=127.0.0.1"]
        command += [f"--port={first}", f"--dashboard-port={first + 1}", f"--ray-client-server-port={first + 2}"]
        command += [f"--dashboard-agent-grpc-port={first + 3}", f"--runtime-env-agent-port={first + 4}"]
        command += [f"--dashboard-agent-listen-port={first + 5}"]
        command += [f"--min-worker-port={first + 6}", f"--max-worker-port={first + 39}"]  # not where the others may lie
        command += [f"--temp-dir={folder}", "--num-cpus=2", "--num-gpus=0", f"--object-store-memory={80 * 2**20}"]
        process = psutil.Popen([*map(str, command)], env=outside, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_API_SERVER_ADDRESS", f"http://127.0.0.1:{first + 1}")
            patch.setenv("AWS_SECRET_ACCESS_KEY", OF_THE_LAPTOP)
            try:
                until(lambda: submit("--list").exit_code == 0, 400)
                yield Path(folder)
            finally:
                for one in [*process.children(recursive=True), process]:
                    one.kill()
                process.wait()


def until(come: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := come()):
        assert time.monotonic() < deadline, f"nothing in {seconds:.0f} s"
        time.sleep(0.2)
    return found


def asked(*arguments: object) -> dict[str, Any]:
    found = submit(*arguments, "--json")
    assert found.exit_code == 0, found.output
    document: dict[str, Any] = json.loads(found.stdout)
    return document


def secrets_in(folder: Path) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [p for p in files if any(s.encode() in p.read_bytes() for s in (OF_THE_LAPTOP, OF_THE_CLUSTER))]


@pytest.mark.long
def test_a_job_runs_on_the_cluster_and_is_seen_from_here(head: Path, tmp_path: Path) -> None:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(8))
    places = (tmp_path / "src", tmp_path / "dst")
    handed_in = submit("restore", *places, "--method", "passthrough", "--actors", 1, "--recogniser", "none")
    assert handed_in.exit_code == 0 and "is here; the job looks for it" in handed_in.stderr, handed_in.output
    (job,) = [word for word in handed_in.stdout.replace(":", " ").split() if word.startswith("raysubmit_")][:1]
    followed = submit("--logs", job, "--follow")
    assert followed.exit_code == 0 and "8 rows in = 8 written" in followed.stdout, followed.output
    done = asked("--status", job)
    assert (done["state"], done["exit_code"]) == ("succeeded", 0) and done["ended"] >= done["started"]
    assert "8 rows in = 8 written" in asked("--logs", job)["logs"]
    support.assert_whole(tmp_path / "dst", 8)
    listed = submit("--list", "--json")
    assert [one["job"] for one in json.loads(listed.stdout)] == [job]
    assert not secrets_in(head) and not [s for s in (OF_THE_LAPTOP, OF_THE_CLUSTER) if s in listed.stdout]
    ended = asked("--stop", job)
    assert ended["stopping"] is False and ended["state"] == "succeeded"
    unknown = submit("--status", "raysubmit_none")
    assert unknown.exit_code == 2 and "`bfr submit --list` has them" in unknown.stderr


@pytest.mark.long
@pytest.mark.usefixtures("head")
def test_a_job_is_stopped_in_good_order_and_the_next_resumes_it(tmp_path: Path) -> None:
    """Its second half waits until the file `hold` is gone."""
    rows = [row | {"id": f"{'waits' if i >= 8 else 'row'}-{i}"} for i, row in enumerate(support.make_rows(16))]
    support.write_parquet(tmp_path / "src" / "a.parquet", rows, group_rows=2)
    (hold := tmp_path / "hold").touch()
    settings = {"method": "faulty", "options": {"hold": str(hold)}, "shard_rows": 2, "recogniser": "none"}
    (tmp_path / "run.yaml").write_text(json.dumps(settings))
    words = ("restore", tmp_path / "src", tmp_path / "dst", "--config", tmp_path / "run.yaml", "--engine", "local")
    job = json.loads(submit("--json", *words).stdout)["job"]
    until(lambda: list((tmp_path / "dst").glob("commits/*.json")), 400)
    command_lines = [" ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"])]
    assert not [line for line in command_lines if OF_THE_LAPTOP in line or OF_THE_CLUSTER in line]
    assert asked("--stop", job)["stopping"] is True
    state = until(lambda: (found := asked("--status", job))["state"] not in ("pending", "running") and found, 240)
    assert state["state"] == "stopped"
    assert "what is done is kept" in asked("--logs", job)["logs"]
    assert not (tmp_path / "dst" / "run.json").exists()
    hold.unlink()
    again = json.loads(submit("--json", *words).stdout)["job"]
    followed = submit("--logs", again, "--follow")
    assert followed.exit_code == 0 and "16 rows in = 16 written" in followed.stdout, followed.output
    support.assert_whole(tmp_path / "dst", 16)
