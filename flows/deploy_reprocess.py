"""Puts `reprocess` on a schedule: the deployment, and what it needs on a Prefect server."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import count
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.client.schemas.sorting import DeploymentSort
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL
from prefect.types.entrypoint import EntrypointType
from pydantic import ValidationError

from bfr_models.errors import UsageError
from bfr_models.faces.recognisers import RECOGNISERS
from bfr_models.metrics.measures import lpips_backbone
from flows.orchestration.credentials import StoreCredentials, load_credentials
from flows.orchestration.run_page import slug
from flows.reprocess import reprocess
from tasks.config.reprocess import ReprocessRun
from tasks.config.resolve import ResolvedRun, resolve_run
from tasks.storage.redaction import redact

TAG = "bfr"
HEARTBEAT = 30  # seconds; Prefect allows no shorter interval
SILENCE = timedelta(seconds=3 * HEARTBEAT)
PAGE = 200  # deployments; the most that a server gives at once
WATCH = "bfr: a run that has fallen silent has crashed"


def deploy(
    run: ReprocessRun,
    *,
    cron: str | None = None,
    interval: float | None = None,
    timezone: str | None = None,
    name: str | None = None,
    work_pool: str = "bfr",
    gpu_limit: int | None = None,
) -> dict[str, Any]:
    """Creates or changes the deployment of one destination; returns its description.

    Give exactly one of `cron` and `interval` (seconds). A run that falls due while the previous one is still working
    is skipped; the next one takes its files. `gpu_limit` is how many runs may hold `run.gpu_pool` at once, 1 for a new
    limit. Networks set to `auto` are chosen here, once for all workers. Raises UsageError before changing anything.
    """
    schedule = _schedule(cron, interval, timezone)
    if gpu_limit is not None and run.gpu_pool is None:
        raise UsageError(f"expected --gpu-pool with --gpu-limit {gpu_limit}, found none: name the limit that it is for")
    resolved = resolve_run(run)
    _require_no_keys(run)
    run = run.model_copy(update=_chosen(resolved))
    name = name or default_name(run.destination)
    with _server() as client:
        _require_one_deployment(client, run, name)
        if run.credentials is not None:
            load_credentials(run.credentials)
        _ensure_work_pool(client, work_pool)
        StoreCredentials.register_type_and_schema()
        if run.gpu_pool is not None:
            _ensure_limit(client, run.gpu_pool, gpu_limit)
        if not client.read_automations_by_name(WATCH):
            client.create_automation(_watch())
    deployment: Any = reprocess.to_deployment(
        name,
        schedules=[schedule],
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
        parameters={"run": run.model_dump(mode="json", exclude_none=True)},
        description=f"{redact(run.source)} to {redact(run.destination)}, by `bfr deploy`",
        tags=[TAG, run.method],
        work_pool_name=work_pool,
        job_variables={"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT)}},
        entrypoint_type=EntrypointType.MODULE_PATH,  # the installed package: nothing is fetched
    )
    made = deployment.apply()
    return {
        "deployment": f"{reprocess.name}/{name}",
        "id": str(made),
        "schedule": cron or f"every {interval:g} s",
        "work_pool": work_pool,
        "gpu_pool": run.gpu_pool,
        "measured_by": run.model_dump(include={"recogniser", "lpips", "fid"}),
        "watch": WATCH,
        "next": [f"prefect worker start --pool {work_pool}", f"prefect deployment run {reprocess.name}/{name}"],
    }


def default_name(destination: str) -> str:
    """The deployment's default name: the end of the address to read, a digest of the whole to keep it unique."""
    return f"{slug(destination)}-{hashlib.sha256(_place(destination).encode()).hexdigest()[:8]}"


def _place(destination: str) -> str:
    return destination.rstrip("/")


def _chosen(resolved: ResolvedRun) -> dict[str, str | float]:
    """Names for `auto`, and the judge's limit: networks are part of a generation's settings, and workers may have other
    weights, or no judge."""
    names = {network: name for name, network in RECOGNISERS.items()}
    judged = {"max_harm": resolved.care.max_harm} if resolved.care.judge else {}
    return judged | {
        "recogniser": names[resolved.recogniser.name] if resolved.recogniser else "none",
        "lpips": lpips_backbone(resolved.measures),
        "fid": "inception" if resolved.measures.inception else "none",
    }


def _schedule(cron: str | None, interval: float | None, timezone: str | None) -> CronSchedule | IntervalSchedule:
    if (cron is None) == (interval is None):
        raise UsageError('expected --cron or --interval, one of them; for example --cron "0 3 * * *"')
    try:
        if cron is not None:
            return CronSchedule(cron=cron, timezone=timezone)
        return IntervalSchedule(interval=timedelta(seconds=interval or 0), timezone=timezone)
    except ValidationError as error:
        found = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UsageError(
            f"expected a schedule that Prefect takes, found: {found}; for example "
            '--cron "0 3 * * *" --timezone Europe/Berlin'
        ) from None


def _require_no_keys(run: ReprocessRun) -> None:
    """Everyone who reaches the Prefect server can read a deployment's parameters."""
    for url in filter(None, (run.source, run.destination, run.select, run.fid_reference)):
        if redact(url) != url:
            raise UsageError(
                f"expected an address without keys, found them in that of {redact(url)}; see --credentials"
            )


@contextmanager
def _server() -> Iterator[SyncPrefectClient]:
    """A client of the server that keeps the schedule."""
    advice = "start one with `prefect server start` (infra/README.md), then set PREFECT_API_URL"
    url = PREFECT_API_URL.value()
    if not url:
        raise UsageError(f"expected a Prefect server to keep the schedule, found no PREFECT_API_URL; {advice}")
    with get_client(sync_client=True) as client:
        if (error := client.api_healthcheck()) is not None:
            raise UsageError(
                f"expected a Prefect server at PREFECT_API_URL={redact(url)}, found none that answers "
                f"({type(error).__name__}: {error}); {advice}"
            )
        yield client


def _require_one_deployment(client: SyncPrefectClient, run: ReprocessRun, name: str) -> None:
    """Two schedules on one destination would duplicate work; reusing a name for another destination would silently
    drop the first."""
    place, flow = redact(run.destination), reprocess.name
    with suppress(ObjectNotFound):
        other = _destination(client.read_deployment_by_name(f"{flow}/{name}"))
        if _place(other) != _place(run.destination):
            raise UsageError(
                f"expected {flow}/{name} to be the deployment for {place}, found that it is for {redact(other)}; use "
                "another --name"
            )
    ours = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
    for found in _all_deployments(client, ours):
        if found.name != name and _place(_destination(found)) == _place(run.destination):
            raise UsageError(
                f"expected no other deployment for {place}, found {flow}/{found.name}; change it with "
                f"--name {found.name}, or delete it: `prefect deployment delete {flow}/{found.name}`"
            )


def _all_deployments(client: SyncPrefectClient, which: DeploymentFilter) -> Iterator[DeploymentResponse]:
    """Page by page: a server gives no more at a time."""
    for offset in count(0, PAGE):
        found = client.read_deployments(
            deployment_filter=which, limit=PAGE, offset=offset, sort=DeploymentSort.NAME_ASC
        )
        yield from found
        if len(found) < PAGE:
            return


def _destination(found: DeploymentResponse) -> str:
    return str(found.parameters.get("run", {}).get("destination", ""))


def _ensure_work_pool(client: SyncPrefectClient, name: str) -> None:
    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        client.create_work_pool(WorkPoolCreate(name=name, type="process"))


def _ensure_limit(client: SyncPrefectClient, pool: str, limit: int | None) -> None:
    try:
        client.read_global_concurrency_limit_by_name(pool)
        is_there = True
    except ObjectNotFound:
        is_there = False
    if limit is not None or not is_there:
        client.upsert_global_concurrency_limit_by_name(pool, limit or 1)


def _watch() -> AutomationCore:
    """Marks a run as crashed if its machine is gone: a killed process sends no event, but its heartbeats stop."""
    ended = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
    return AutomationCore(
        name=WATCH,
        description="The next run goes on from what is committed.",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.heartbeat", *ended},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            match_related=ResourceSpecification(
                {"prefect.resource.role": ["flow"], "prefect.resource.name": [reprocess.name]}
            ),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=SILENCE,
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=f"no heartbeat in {SILENCE.seconds} s")],
    )
