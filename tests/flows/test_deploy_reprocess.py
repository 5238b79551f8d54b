"""What `bfr deploy` leaves on a Prefect server, and what it refuses before it changes anything."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prefect.concurrency.sync import concurrency
from prefect.events.schemas.automations import AutomationCore
from prefect.settings import (
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    temporary_settings,
)

from bfr_models.errors import UsageError
from bfr_models.faces import recognisers
from flows import deploy_reprocess
from flows.deploy_reprocess import HEARTBEAT, WATCH, _watch, deploy
from flows.orchestration.credentials import StoreCredentials, use_credentials
from flows.orchestration.run_page import DEGRADED, FAILED, HELD_BACK
from flows.reprocess import reprocess, share_of
from tasks.config.reprocess import ReprocessRun
from tasks.config.resolve import resolve_run
from tests import support

# With the server's time on a busy machine.
post, get = partial(httpx.post, timeout=120), partial(httpx.get, timeout=120)

Ask = Callable[..., ReprocessRun]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(1))
    return partial(support.make_reprocess_run, tmp_path)


def deployment(server: str, made: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = get(f"{server}/deployments/{made['id']}").json()
    return found


def test_a_deployment_has_a_schedule_a_form_and_one_run_at_a_time(prefect_server: str, ask: Ask) -> None:
    made = deploy(run := ask(gpu_pool="gpus", max_fid_rise=0.2), cron="0 3 * * *", timezone="Europe/Berlin")
    found = deployment(prefect_server, made)
    (schedule,) = found["schedules"]
    assert (schedule["schedule"]["cron"], schedule["schedule"]["timezone"]) == ("0 3 * * *", "Europe/Berlin")
    assert found["entrypoint"] == "flows.reprocess.reprocess" and not found["pull_steps"]
    assert found["global_concurrency_limit"]["limit"] == 1
    assert found["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    assert found["parameters"]["run"]["max_fid_rise"] == 0.2
    assert ReprocessRun(**found["parameters"]["run"]) == run.model_copy(update=made["measured_by"])
    assert set(found["tags"]) == {"bfr", "passthrough"} and found["enforce_parameter_schema"]
    form = found["parameter_openapi_schema"]["definitions"]["ReprocessRun"]["properties"]
    assert form["max_identity_drop"]["maximum"] == 2 and "description" in form["keep_generations"]
    limits = post(f"{prefect_server}/v2/concurrency_limits/filter", json={}).json()
    assert {limit["name"]: limit["limit"] for limit in limits}["gpus"] == 1
    assert get(f"{prefect_server}/work_pools/{made['work_pool']}").json()["type"] == "process"


def test_the_form_is_validated_by_the_server(prefect_server: str, ask: Ask) -> None:
    made = deploy(ask(), interval=3600)
    for wrong in ({"method": 1}, {"max_identity_drop": -1}, {"quality": 101}, {"colour": "red"}):
        run = ask().model_dump(mode="json", exclude_none=True) | wrong
        asked = {"parameters": {"run": run}, "state": {"type": "SCHEDULED"}}
        answer = post(f"{prefect_server}/deployments/{made['id']}/create_flow_run", json=asked)
        assert answer.status_code == 409, wrong


def test_the_same_command_again_changes_the_deployment(prefect_server: str, ask: Ask) -> None:
    first = deploy(ask(gpu_pool="cards"), interval=60, gpu_limit=2)
    second = deploy(ask(seed=1, gpu_pool="cards"), interval=90)
    assert first["id"] == second["id"]
    found = deployment(prefect_server, second)
    assert [schedule["schedule"]["interval"] for schedule in found["schedules"]] == [90]
    assert found["parameters"]["run"]["seed"] == 1
    limits = post(f"{prefect_server}/v2/concurrency_limits/filter", json={}).json()
    assert {limit["name"]: limit["limit"] for limit in limits}["cards"] == 2, "what is there stays as it is"
    watches = post(f"{prefect_server}/automations/filter", json={}).json()
    assert [watch["name"] for watch in watches].count(WATCH) == 1
    with pytest.raises(UsageError, match=r"expected no other deployment for .*dst, found reprocess/"):
        deploy(ask(), interval=60, name="another")


def test_a_deployment_of_another_destination_is_not_overwritten(prefect_server: str, ask: Ask) -> None:
    made = deploy(ask(destination="s3://archive/restored"), interval=60)
    other = deploy(ask(destination="s3://archive-restored"), interval=60)
    assert made["id"] != other["id"], "their addresses differ in one dash alone"
    name = made["deployment"].partition("/")[2]
    with pytest.raises(
        UsageError, match=rf"expected {made['deployment']} .*s3://other, found .*s3://archive/restored;"
    ):
        deploy(ask(destination="s3://other"), interval=60, name=name)
    assert deployment(prefect_server, made)["parameters"]["run"]["destination"] == "s3://archive/restored"
    assert deploy(ask(destination="s3://archive/restored/"), interval=90)["id"] == made["id"]


def test_a_second_deployment_of_a_destination_is_found_among_any_number(
    prefect_server: str, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("page-1", "page-2"):
        deploy(ask(destination=f"s3://{name}"), interval=60, name=name)
    monkeypatch.setattr(deploy_reprocess, "PAGE", 1)
    with pytest.raises(UsageError, match="expected no other deployment for s3://page-2, found reprocess/page-2"):
        deploy(ask(destination="s3://page-2"), interval=60, name="page-3")


def test_what_is_auto_is_chosen_where_it_is_deployed(
    prefect_server: str, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = deploy(run := ask(gt_column="image"), interval=60)
    settings = deployment(prefect_server, made)["parameters"]["run"]
    assert "auto" not in (settings["recogniser"], settings["lpips"], settings["fid"])
    assert resolve_run(ReprocessRun(**settings)).settings == resolve_run(run).settings
    monkeypatch.setattr(recognisers, "dlib_is_here", lambda: False)  # a worker with less
    monkeypatch.setattr(recognisers, "find_weight", lambda name: None)
    with pytest.raises(UsageError, match="expected dlib to recognise faces with"):
        resolve_run(ReprocessRun(**settings))


def test_what_is_wrong_is_said_before_anything_is_made(prefect_server: str, ask: Ask) -> None:
    before = post(f"{prefect_server}/deployments/count", json={}).json()
    for schedule in ({}, {"cron": "* * * * *", "interval": 5.0}):
        with pytest.raises(UsageError, match="expected --cron or --interval"):
            deploy(ask(), **schedule)
    with pytest.raises(UsageError, match=r"expected a schedule that Prefect takes, found: .*at three"):
        deploy(ask(), cron="at three")
    for schedule in ({"cron": "0 3 * * *"}, {"interval": 60.0}):
        with pytest.raises(UsageError, match=r"expected a schedule that Prefect takes, found: .*timezone"):
            deploy(ask(), timezone="Middle/Earth", **schedule)
    with pytest.raises(UsageError, match="expected --gpu-pool with --gpu-limit 2, found none"):
        deploy(ask(), interval=60, gpu_limit=2)
    with pytest.raises(UsageError, match="unknown method 'magic'"):
        deploy(ask(method="magic"), interval=60)
    with pytest.raises(UsageError, match="expected an address without keys, found them in that of s3://bucket/x"):
        deploy(ask(source="s3://key:secret@bucket/x"), interval=60)
    with pytest.raises(UsageError, match="found them in that of s3://bucket/assessed"):
        deploy(ask(select="s3://key:secret@bucket/assessed"), interval=60)
    with pytest.raises(UsageError, match="expected a Prefect block bfr-store-credentials/nobody, found none"):
        deploy(ask(credentials="nobody"), interval=60, work_pool="not-made")
    assert get(f"{prefect_server}/work_pools/not-made").status_code == 404
    assert post(f"{prefect_server}/deployments/count", json={}).json() == before


def test_without_a_server_there_is_no_schedule(ask: Ask) -> None:
    with (
        temporary_settings({PREFECT_API_URL: None}),
        pytest.raises(UsageError, match="found no PREFECT_API_URL; start"),
    ):
        deploy(ask(), interval=60)
    deaf = {PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_API_REQUEST_TIMEOUT: 1, PREFECT_CLIENT_MAX_RETRIES: 0}
    with temporary_settings(deaf), pytest.raises(UsageError, match=r"127\.0\.0\.1:9/api, found none that answers"):
        deploy(ask(), interval=60)


def test_runs_share_the_gpus_by_a_limit(prefect_server: str, ask: Ask) -> None:
    deploy(ask(gpu_pool="shared"), interval=3600)

    def taken() -> float:
        return float(get(f"{prefect_server}/v2/concurrency_limits/shared").json()["active_slots"])

    with share_of("shared"):
        assert taken() == 1
        with pytest.raises(TimeoutError), concurrency("shared", timeout_seconds=1, strict=True):
            raise AssertionError("there is one")
    assert taken() == 0
    with pytest.raises(UsageError, match="gcl create no-such-limit"), share_of("no-such-limit"):
        raise AssertionError("a limit that is not there holds nobody back")


def test_the_written_down_deployment_is_the_one_that_is_made() -> None:
    written = yaml.safe_load((support.ROOT / "infra" / "prefect.yaml").read_text())
    (found,) = written["deployments"]
    assert found["entrypoint"] == f"{reprocess.fn.__module__}.{reprocess.fn.__name__}" and written["pull"] == []
    run = ReprocessRun(**found["parameters"]["run"])
    assert run.credentials and run.gpu_pool
    assert "auto" not in (run.recogniser, run.lpips, run.fid)
    assert found["work_pool"]["job_variables"]["env"] == {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT)}


def test_the_written_down_automations_tell_of_all_that_goes_wrong() -> None:
    written = yaml.safe_load((support.ROOT / "infra" / "automations.yaml").read_text())["automations"]
    ours, crashed, silent = map(AutomationCore.model_validate, written)
    assert ours.trigger.expect == {FAILED, DEGRADED, HELD_BACK}
    assert crashed.trigger.expect == {"prefect.flow-run.Crashed", "prefect.flow-run.Failed"}
    assert crashed.trigger.match_related == silent.trigger.match_related
    assert silent == _watch(), "what `bfr deploy` makes"


@pytest.mark.usefixtures("prefect_server")
def test_a_run_has_its_keys_from_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "ENDPOINT_URL", "ENDPOINT_URL_S3")
    for name in names:
        monkeypatch.setenv(f"AWS_{name}", "of-the-worker")
    keys = StoreCredentials(access_key_id="reader", secret_access_key="hush", endpoint_url="http://127.0.0.1:1")
    keys.save("museum", overwrite=True)
    use_credentials("museum")
    assert os.environ["AWS_ACCESS_KEY_ID"] == "reader" and os.environ["AWS_SECRET_ACCESS_KEY"] == "hush"
    assert os.environ["AWS_ENDPOINT_URL"] == "http://127.0.0.1:1"
    assert "AWS_ENDPOINT_URL_S3" not in os.environ, "S3's driver would ask the worker's own store"
    assert "AWS_SESSION_TOKEN" not in os.environ, "a session of other keys would be refused"
    assert "hush" not in repr(keys)
    StoreCredentials(access_key_id="other", secret_access_key="hush").save("museum", overwrite=True)
    use_credentials("museum")
    assert os.environ["AWS_ACCESS_KEY_ID"] == "other" and os.environ["AWS_ENDPOINT_URL"] == "http://127.0.0.1:1"
