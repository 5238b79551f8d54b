"""Trains one network of one method."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.settings import get_current_settings

from flows.orchestration.lost_runs import own_run
from flows.orchestration.phases import with_fallback
from flows.orchestration.run_page import emit_failure_event, relay_worker_logs
from tasks.config.train import TrainRun
from tasks.train_component import train_component


@flow(name="train-network", flow_run_name="{run.title}")
def train_network(run: TrainRun) -> dict[str, Any]:
    """Trains it; what it says of its progress is in the flow run's log. Returns where the results are."""
    own_run()
    with emit_failure_event(run.out), relay_worker_logs():
        return train_component(run)


def train_where_configured(run: TrainRun) -> dict[str, Any]:
    """With Prefect if PREFECT_API_URL names a server; a training needs none."""
    if get_current_settings().api.url is None:
        return train_component(run)
    return with_fallback(lambda: train_network(run), lambda: train_component(run))
