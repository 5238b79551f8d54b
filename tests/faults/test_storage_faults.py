"""A run over an object store that throttles, resets, truncates and delays: every row once, the same bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pytest

from bfr_models.errors import BfrError, UsageError
from flows.restore_dataset import restore_without_prefect
from tasks.config.restore import RestoreRun
from tasks.report.run_report import write_report
from tasks.runs.single_writer import learn_conditions
from tasks.storage.store import Store
from tasks.vacuum_run import vacuum_run
from tasks.verify_run import verify_run
from tests import support
from tests.faults.fault_proxy import KINDS, FaultProxy, Request, never, some

ROWS = 16
ONE_KIND = (pytest.mark.s3, pytest.mark.minutes)  # they are among all kinds, too
ON_EACH = pytest.mark.parametrize(
    "proxy",
    [pytest.param("moto", marks=pytest.mark.long), pytest.param("ceph", marks=(pytest.mark.s3, pytest.mark.minutes))],
    indirect=True,
)
"""On the real store with `make test-all` alone."""


@pytest.fixture
def run(bucket: str, tmp_path: Path) -> RestoreRun:
    """A run from and to the bucket: four shards."""
    file = support.write_parquet(tmp_path / "a.parquet", support.make_rows(ROWS))
    Store(bucket).write("src/a.parquet", file.read_bytes())
    return RestoreRun(
        source=f"{bucket}/src", destination=f"{bucket}/dst", method="passthrough", engine="local", shard_rows=4
    )


def to_the_end(run: RestoreRun, tries: int = 8) -> dict[str, Any]:
    """The same command until it is done."""
    for _ in range(tries):
        try:
            return restore_without_prefect(run)
        except (BfrError, OSError) as error:
            failure = error
    raise AssertionError(f"not done in {tries} tries") from failure


def undisturbed(run: RestoreRun) -> dict[str, bytes]:
    other = run.model_copy(update={"destination": f"{run.destination}-undisturbed"})
    restore_without_prefect(other)
    return support.restored_images_at(other.destination)


@pytest.mark.parametrize(
    ("proxy", "kinds"),
    [
        ("moto", KINDS),
        pytest.param("ceph", KINDS, marks=pytest.mark.s3),
        pytest.param("ceph", ("busy",), marks=ONE_KIND),
        pytest.param("ceph", ("reset_after",), marks=ONE_KIND),
        pytest.param("ceph", ("reset_upload", "reset_download"), marks=ONE_KIND),
    ],
    indirect=["proxy"],
)
def test_spoiled_requests_lose_nothing_and_double_nothing(
    kinds: tuple[str, ...], proxy: FaultProxy, run: RestoreRun
) -> None:
    proxy.choose, proxy.slow_seconds = some(seed=len(kinds), share=0.2, kinds=kinds), 0.2
    record = to_the_end(run)
    proxy.choose = never
    assert sum(proxy.faults.values()) >= 5 and set(proxy.faults) <= set(kinds)
    assert record["totals"]["restored"] == ROWS
    found = verify_run(run.destination)
    assert found["ok"] and found["rows"] == ROWS, found["problems"]
    assert support.restored_images_at(run.destination) == undisturbed(run)


@ON_EACH
def test_a_storm_is_waited_out(proxy: FaultProxy, run: RestoreRun) -> None:
    """After the first commit the store refuses everything for some seconds."""
    calm = threading.Timer(5, lambda: setattr(proxy, "choose", never))

    def storm(request: Request) -> str | None:
        if not calm.is_alive() and "/commits/" in request.path and request.method == "PUT":
            calm.start()
        return "busy" if calm.is_alive() else None

    proxy.choose = storm
    record = restore_without_prefect(run)
    calm.join()
    assert proxy.faults["busy"] >= 5 and record["totals"]["restored"] == ROWS
    assert verify_run(run.destination)["ok"] and support.restored_images_at(run.destination) == undisturbed(run)


@ON_EACH
def test_two_drivers_at_once_over_a_bad_store_share_the_work(proxy: FaultProxy, run: RestoreRun) -> None:
    proxy.choose, proxy.slow_seconds = some(seed=5, share=0.15), 0.2
    drivers = [threading.Thread(target=to_the_end, args=(run,)) for _ in range(2)]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join(600)
    proxy.choose = never
    to_the_end(run)
    vacuum_run(run.destination)
    found = verify_run(run.destination)
    extra = {problem["kind"] for problem in found["problems"]}
    assert extra <= {"file_extra"}, found["problems"]  # a loser that was cut off while it removed its own file
    assert found["rows"] == ROWS and support.restored_images_at(run.destination) == undisturbed(run)


def test_requests_do_not_grow(proxy: FaultProxy, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Per shard: two HEADs of its file, two ranges for its footer and one for its rows, a PUT each of the data and of
    the commit, between them a look for a newer plan (GET, HEAD); the commit is read again (HEAD, GET) when the run is
    closed. Apart from that: what any run costs, and the pictures of its report, which has at most 48 faces."""
    counts, of_report = [], []

    def counted(*args: Any) -> None:
        before = sum(proxy.count().values())
        write_report(*args)
        of_report.append(sum(proxy.count().values()) - before)
        del proxy.requests[before:]

    monkeypatch.setattr("tasks.finish_run.write_report", counted)
    for rows in (64, 96):  # footers of about the same size take as many reads
        file = support.write_parquet(tmp_path / "a.parquet", support.make_rows(rows, side=24), group_rows=4)
        Store(f"{bucket}/src-{rows}").write("a.parquet", file.read_bytes())
        proxy.requests.clear()
        restore_without_prefect(
            RestoreRun(
                source=f"{bucket}/src-{rows}",
                destination=f"{bucket}/dst-{rows}",
                method="passthrough",
                engine="local",
                shard_rows=4,
            )
        )
        counts.append(proxy.count())
    few, many = counts
    per_shard = {method: (many[method] - few[method]) / 8 for method in ("HEAD", "GET", "PUT", "POST", "DELETE")}
    assert per_shard == {"HEAD": 4, "GET": 4, "PUT": 2, "POST": 0, "DELETE": 0}
    assert sum(few.values()) - 10 * 16 <= 134  # 12 of them the look at the first rows, 1 the dataset card
    assert max(of_report) <= 8 * 48


@pytest.mark.parametrize("proxy", ["moto"], indirect=True)  # which does not check that headers are as they were signed
def test_a_store_without_conditions_is_found_out_and_has_one_driver(
    proxy: FaultProxy, run: RestoreRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.choose = lambda request: "unconditional"
    refused: list[BaseException] = []

    def meanwhile() -> None:
        try:
            restore_without_prefect(run)
        except BaseException as error:
            refused.append(error)

    import tasks.restore_shards as engine

    make = engine.make_job

    def second_driver(*arguments: Any, **named: Any) -> Any:
        monkeypatch.setattr(engine, "make_job", make)
        thread = threading.Thread(target=meanwhile)
        thread.start()
        thread.join(300)
        return make(*arguments, **named)

    monkeypatch.setattr(engine, "make_job", second_driver)
    record = restore_without_prefect(run)
    assert "single-writer mode" in record["warnings"][0]
    assert b"single-writer mode" in Store(run.destination).read("report/index.html")
    (error,) = refused
    assert isinstance(error, UsageError) and "found one at work" in str(error)
    assert verify_run(run.destination)["ok"]
    assert not Store(run.destination).exists("plan/owner.json")


def test_a_store_with_conditions_has_no_warning_and_is_asked_once(proxy: FaultProxy, run: RestoreRun) -> None:
    assert restore_without_prefect(run)["warnings"] == []
    probes = [request for request in proxy.requests if "probe" in request.path and request.method == "PUT"]
    assert len(probes) == 2


def test_a_store_with_conditions_is_known_for_one_though_an_answer_is_lost(proxy: FaultProxy, bucket: str) -> None:
    lost: list[Request] = []

    def lose_the_first(request: Request) -> str | None:
        if lost or "probe" not in request.path or request.method != "PUT":
            return None
        lost.append(request)
        return "reset_after"

    proxy.choose = lose_the_first
    assert learn_conditions(Store(f"{bucket}/dst")) and lost


def test_no_permission_stops_a_run_at_once(proxy: FaultProxy, run: RestoreRun, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse = Store.write

    def write(store: Store, path: str, data: bytes, **options: Any) -> None:
        if path.startswith("data/"):
            raise PermissionError("Access Denied")
        refuse(store, path, data, **options)

    monkeypatch.setattr(Store, "write", write)
    proxy.requests.clear()
    with pytest.raises(BfrError, match="storage refuses: PermissionError"):
        restore_without_prefect(run)


def test_dangling_uploads_are_found_and_aborted(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import timedelta

    from tasks import vacuum_run as module

    monkeypatch.setattr(module, "MIN_AGE", timedelta(0))
    fs = fsspec.filesystem("s3", skip_instance_cache=True)
    name = bucket.removeprefix("s3://")
    for key in ("dst/data/x.parquet", "elsewhere/y"):
        fs.call_s3("create_multipart_upload", Bucket=name, Key=key)
    store = Store(f"{bucket}/dst")
    assert [upload.path for upload in store.uploads()] == ["data/x.parquet"]
    for upload in store.uploads():
        store.remove(upload)
    assert store.uploads() == [] and len(Store(bucket).uploads()) == 1


@pytest.mark.s3
@pytest.mark.parametrize("proxy", ["ceph"], indirect=True)
def test_the_command_with_difface_from_bucket_to_bucket(
    proxy: FaultProxy, run: RestoreRun, prefect_server: str
) -> None:
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    bfr = str(Path(sys.executable).with_name("bfr"))
    outside = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    outside |= {"PREFECT_API_URL": prefect_server, "PYTHONPATH": str(support.ROOT)}
    command = [bfr, "restore", run.source, run.destination, "--method", "difface", "--steps", "2", "--json"]
    proxy.choose = some(seed=1, share=0.05, kinds=("busy", "truncate"))
    result = subprocess.run(command, check=False, env=outside, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["totals"]["restored"] == ROWS
    assert verify_run(run.destination)["ok"]
    store = Store(run.destination)
    assert secret not in result.stdout + result.stderr
    assert not any(secret.encode() in store.read(path) for path in store.list())


@pytest.mark.s3
@pytest.mark.parametrize("proxy", ["ceph"], indirect=True)
def test_wrong_credentials_are_said_before_any_work(
    proxy: FaultProxy, run: RestoreRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2-hunter2")
    with pytest.raises((UsageError, PermissionError)) as refused:
        restore_without_prefect(run)
    assert "hunter2" not in str(refused.value)


def test_of_writers_who_saw_the_same_version_one_replaces_it(bucket: str) -> None:
    store = Store(bucket)
    store.write("current.json", b"first")
    rivals = [Store(bucket) for _ in range(8)]
    for _ in range(5):
        seen = store.info("current.json").version
        with ThreadPoolExecutor(8) as writers:
            tokens = [uuid.uuid4().bytes for _ in range(8)]
            replace = [partial(one.replace, "current.json", version=seen) for one in rivals]
            won = list(writers.map(lambda put, token: put(token), replace, tokens))
        assert won.count(True) == 1 and store.read("current.json") == tokens[won.index(True)]
