"""Closes flow runs in Prefect whose process was killed: nobody else would, and they would be RUNNING for ever.

Each process locks a file for each of its flow runs; the kernel frees the lock when the process ends, by whatever cause.
The next run of the same user and API goes through the files that nobody locks.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings
from prefect.states import Crashed

from flows.orchestration.early_server import is_embedded
from flows.orchestration.run_page import best_effort

_held: list[int] = []  # descriptors, locked until this process ends: its run is closed only after the recipe


@best_effort
def own_run() -> None:
    """Marks the current flow run as this process's, and closes those of processes that are gone."""
    context = FlowRunContext.get()
    assert context is not None and context.flow_run is not None
    folder = get_current_settings().home / "bfr-runs"
    folder.mkdir(parents=True, exist_ok=True)
    mine = os.open(folder / str(context.flow_run.id), os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(mine, fcntl.LOCK_EX)
    _held.append(mine)
    api = get_current_settings().api.url or ""
    api = "" if is_embedded(api) else api  # one database, whatever the port
    os.write(mine, api.encode())
    with get_client(sync_client=True) as client:
        for lost in _lost(folder, api):
            _close(client, UUID(lost.name))
            lost.unlink(missing_ok=True)


def _lost(folder: Path, api: str) -> Iterator[Path]:
    """The files of that API's flow runs whose process is gone. Each is locked while it is dealt with."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if file.read().decode() == api:
                yield path


def _close(client: SyncPrefectClient, run: UUID) -> None:
    try:
        state = client.read_flow_run(run).state
    except ObjectNotFound:  # deleted, or of another database
        return
    if state is None or not state.is_final():
        client.set_flow_run_state(run, Crashed(message="Its process was killed."), force=True)
