"""Plans a run: its shards are decided once and frozen.

    plan/spec.json       what decides the output; other settings on the same destination are refused
    plan/00000.parquet   the live shards; create-only; a resume works from it and does not list the source
    plan/00001.parquet   the next plan, made when a finished run is started again and the source has grown, or when
                         rejected rows are to be tried again, or damaged shards: these then get a new generation

The last plan is the live one. The shards of a file that has changed are replaced by new ones. Shards of a file that is
gone from the source stay, unless the run is told to retire them; if such a file was not restored completely, that is an
error.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from bfr_models.errors import UsageError
from tasks.config.code import differences, require_accepted_code, running_code
from tasks.config.resolve import ResolvedRun
from tasks.config.restore import RestoreRun
from tasks.runs.commits import committed
from tasks.runs.damage import closing_record, described, inspect_shards, newest_plan, record_damage
from tasks.runs.layout import RECORD, SPEC, plan_file
from tasks.runs.listing import list_source
from tasks.runs.live_shards import is_new_retry, live_shards
from tasks.runs.mending import keep_copies, keep_copy, retire, shards_by_commits
from tasks.runs.plan import Plan, find_plan, freeze_plan, latest_plan, plan_numbers, reopen
from tasks.runs.record import read_record
from tasks.runs.sealed import DamagedError
from tasks.runs.shards import is_unchanged
from tasks.runs.single_writer import learn_conditions
from tasks.runs.spec import check_destination, freeze_spec, read_spec, settings_digest
from tasks.storage.store import PARALLEL_READS, Store

_log = logging.getLogger(__name__)


def plan_shards(resolved: ResolvedRun, store: Store) -> Plan:
    """The frozen plan of the run in `store` (its destination), and what is left to do. Makes the first or the next plan
    if one is due. UsageError, before anything is written, if the run must not go there."""
    check_destination(resolved, store)
    run, plan, retry, broken = resolved.run, _live_plan(resolved, store), set[str](), set[str]()
    if plan is not None:
        if not store.exists(SPEC):
            learn_conditions(store)
            freeze_spec(resolved, store)
        _set_aside_record(store, plan)
        broken = _broken_commits(store, plan, run)
        plan = replace(plan, given=run.source, done=plan.done - broken)
        reopen(store, plan)
        retry = set(run.retry_rejected) if is_new_retry(store, plan, run) else set()
        if plan.todo_count and not retry and _sources_unchanged(plan):
            return replace(_renewed(resolved, store, plan, broken), resumed=True)
    live, left_out = live_shards(store, plan, run, retry, broken)
    if plan is not None:
        if [shard.commit for shard in live] == plan.commits:
            finished = closing_record(store, plan) is not None
            plan = plan if finished else _renewed(resolved, store, plan, broken)
            return replace(plan, damaged=left_out, finished=finished)
        _require_code(plan, run)
        keep_copies(store, broken)
    if not live:
        raise UsageError(f"expected rows in {run.source}, found Parquet files without any")
    if plan is None and run.fid_reference is not None:  # else it would be missed when all rows are done
        from tasks.scoring.reference_set import require_reference  # imports OpenCV

        require_reference(run.fid_reference)
    learn_conditions(store)  # before the first write that only one of several drivers may win
    freeze_spec(resolved, store)
    number = 0 if plan is None else plan.number + 1
    made = freeze_plan(store, number, live, run.retry_rejected, _made_by(resolved))
    return replace(made, given=run.source, damaged=left_out)


def finished_plan(resolved: ResolvedRun, store: Store) -> Plan | None:
    """The live plan, if the run is finished and nothing is left to do, by the same rules; None otherwise. Writes
    nothing. UsageError if the run must not go there."""
    check_destination(resolved, store)
    run = resolved.run
    try:
        plan = find_plan(store)
    except DamagedError:
        return None
    if plan is None or not _is_of(resolved, plan) or not store.exists(SPEC) or closing_record(store, plan) is None:
        return None
    live, left_out = live_shards(store, plan, run, set(run.retry_rejected), set())
    if [shard.commit for shard in live] != plan.commits or newest_plan(store, plan) > plan.number:
        return None
    if any(shard.damage for shard in inspect_shards(store, plan, read_spec(store), deep=run.deep)):
        return None
    return replace(plan, given=run.source, damaged=left_out, finished=True)


def _live_plan(resolved: ResolvedRun, store: Store) -> Plan | None:
    """The live plan, made again if it is gone or damaged; None if nothing is planned yet."""
    try:
        plan = find_plan(store)
        newest = -1 if plan is None else newest_plan(store, plan)
        if plan is not None and newest > plan.number:  # another driver may have made it just now
            plan = latest_plan(store)
        if plan is not None and not _is_of(resolved, plan):
            why = f"{plan_file(plan.number)} is that of a run with other settings"
        elif newest <= (plan.number if plan else -1) and (plan or not committed(store)):
            return plan
        else:
            why = f"{plan_file(max(newest, 0))} is gone"
    except DamagedError as error:
        why, newest = f"{error.path}: {error.found}", max(plan_numbers(store))
    _log.warning("%s: the plan is damaged (%s); it is made again from the source and the commits", store, why)
    shards = shards_by_commits(store, list_source(resolved.run)[0])
    learn_conditions(store)
    number = max([newest, *plan_numbers(store)]) + 1
    return freeze_plan(store, number, shards, resolved.run.retry_rejected, _made_by(resolved))


def _is_of(resolved: ResolvedRun, plan: Plan) -> bool:
    """Whether a plan was made for these settings; those of older versions do not say."""
    planned = plan.made_by.get("settings")
    return not planned or settings_digest(planned) == settings_digest(resolved.settings)


def _set_aside_record(store: Store, plan: Plan) -> None:
    """Takes away a run.json that is damaged, or another run's: the run is closed again."""
    try:
        record = read_record(store)
        why = record_damage(record, plan) if record and record.get("plan") == plan.number else ""
    except DamagedError as error:
        why = error.found
    if why:
        copy = keep_copy(store, RECORD)
        store.delete(RECORD)
        _log.warning("%s: run.json is damaged (%s); it is kept as %s, and the run is closed again", store, why, copy)


def _broken_commits(store: Store, plan: Plan, run: RestoreRun) -> set[str]:
    """The commits that do not hold: their shards are done again."""
    shards = inspect_shards(store, plan, read_spec(store), deep=run.deep)
    found = [one for shard in shards for one in shard.damage]
    broken = {one.commit for one in found}
    if broken:
        which = f"{len(broken)} of {plan.shards.num_rows} shards are damaged and are done again"
        _log.warning("%s: %s (%s)", store, which, described(found))
    return broken


def _renewed(resolved: ResolvedRun, store: Store, plan: Plan, broken: set[str]) -> Plan:
    """The plan to go on with: the next one if shards are to be done again, or by other code than before."""
    _require_code(plan, resolved.run)
    differing = differences(plan.made_by.get("code", {}), running_code())
    if not broken and not differing:
        return plan
    if differing and plan.done:
        _log.warning("%s: the run goes on with other code (%s), which was accepted", store, differing)
    learn_conditions(store)
    return retire(store, plan, broken, _made_by(resolved))


def _require_code(plan: Plan, run: RestoreRun) -> None:
    """UsageError if something is done, and by other code."""
    if plan.done:
        require_accepted_code(plan.made_by.get("code", {}), accepted=run.accept_code_change)


def _made_by(resolved: ResolvedRun) -> dict[str, Any]:
    return {"settings": resolved.settings, "arguments": resolved.run.arguments, "code": running_code()}


def _sources_unchanged(plan: Plan) -> bool:
    """Whether the files that are still to be read have not changed since the plan was made."""
    files = {shard.source: shard for shard in plan.todo}
    with ThreadPoolExecutor(PARALLEL_READS) as readers:
        return all(readers.map(is_unchanged, files.values()))
