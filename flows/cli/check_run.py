"""What is known of a `bfr restore` before torch, Prefect and Ray are imported: that it is refused, or done already."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from flows.cli import show_pictures
from tasks.config.restore import RestoreRun
from tasks.storage.redaction import redact
from tasks.storage.waits import say

if TYPE_CHECKING:
    from tasks.config.resolve import ResolvedRun
    from tasks.runs.record import RunRecord


def checked(run: RestoreRun, once_sure: Callable[[], object] = lambda: None) -> ResolvedRun:
    """The run with everything decided, which its destination takes: what can be refused is refused here, before torch,
    Prefect and Ray are imported. If its source is files, they are packed into it: it is a run of that dataset.

    Calls `once_sure` as soon as a new run cannot be refused any more, if there is still something to look at."""
    say(f"{redact(run.source)} -> {redact(run.destination)}: {run.method}")
    from tasks.config.ray_place import require_ray_place
    from tasks.config.resolve import resolve_run
    from tasks.pack_pictures import files_of_run
    from tasks.runs.layout import SPEC
    from tasks.runs.listing import list_source
    from tasks.runs.spec import check_destination, is_empty
    from tasks.storage.store import Store

    store = Store(run.destination)
    store.require_writable()
    if run.engine == "ray":
        require_ray_place()
    resolved = resolve_run(run)
    files, has_begun = files_of_run(run.source, run.destination), store.exists(SPEC)
    if files is not None:
        resolved = resolved.decided(run.model_copy(update={"source": files.url}))
        if not has_begun:  # what the files hold is seen once they are packed
            check_destination(resolved, store)
            show_pictures.packed(files, files.pack())
    if not has_begun and run.select is None:
        list_source(resolved.run)  # refuses files that do not read, and columns that are not there
        if run.input == "auto" and is_empty(store):
            check_destination(resolved, store)
            once_sure()
    resolved = prepared(resolved)
    check_destination(resolved, store)
    if files is not None and has_begun:
        show_pictures.packed(files, files.pack())
    return resolved


def prepared(resolved: ResolvedRun) -> ResolvedRun:
    """The run with everything decided; says what its source was taken for."""
    from tasks.runs.prepare import decide_input, with_rows
    from tasks.runs.spec import as_begun

    run, said = decide_input(as_begun(resolved.run))
    if said:
        say(said)
    return with_rows(resolved.decided(run))


def finished(resolved: ResolvedRun) -> RunRecord | None:
    """run.json, if nothing is left to do."""
    from tasks.finish_run import finish_run
    from tasks.plan_shards import finished_plan
    from tasks.storage.store import Store

    store = Store(resolved.run.destination)
    plan = finished_plan(resolved, store)
    if plan is None:
        return None
    say(f"nothing to do: {store} is finished, and {redact(resolved.run.source)} has nothing new")
    return finish_run(resolved, store, datetime.now(UTC), plan.damaged)
