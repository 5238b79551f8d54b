"""Plans a run: its shards are decided once and frozen.

    plan/spec.json       what decides the output; other settings on the same destination are refused
    plan/00000.parquet   the live shards; create-only; a resume works from it and does not list the source
    plan/00001.parquet   the next plan, made when a finished run is started again and the source has grown, or when
                         rejected rows are to be tried again: their shards then get a new generation

The last plan is the live one. The shards of a file that has changed are replaced by new ones. Shards of a file that is
gone from the source stay, unless the run is told to retire them; if such a file was not restored completely, that is an
error.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from bfr_models.errors import UsageError
from tasks.config.resolve import ResolvedRun
from tasks.config.restore import RestoreRun
from tasks.runs import commits
from tasks.runs.listing import list_source
from tasks.runs.plan import Plan, find_plan, finished_record, freeze_plan, reopen
from tasks.runs.shards import Shard, current_version, from_table
from tasks.runs.single_writer import learn_conditions
from tasks.runs.spec import check_destination, freeze_spec
from tasks.storage.redaction import redact, without_secrets
from tasks.storage.store import PARALLEL_READS, Store


def plan_shards(resolved: ResolvedRun, store: Store) -> Plan:
    """The frozen plan of the run in `store` (its destination), and what is left to do. Makes the first or the next plan
    if one is due. UsageError, before anything is written, if the run must not go there."""
    check_destination(resolved, store)
    run, plan, retry = resolved.run, find_plan(store), set[str]()
    if plan is not None:
        plan = replace(plan, given=run.source)
        reopen(store, plan)
        retry = set(run.retry_rejected) if _is_new_retry(store, plan, run) else set()
        if plan.todo_count and not retry and _sources_unchanged(plan):
            return replace(plan, resumed=True)
    live, damaged = list_source(run)
    left_out = tuple(f"left out: {redact(url)} does not read ({why})" for url, why in damaged.items())
    if plan is not None:
        kept = _carried_over(plan, live, damaged, run.retire_deleted)
        live = kept + _tried_again(store, plan, live, retry)
        if [shard.commit for shard in live] == plan.commits:
            finished = not plan.todo_count and finished_record(store, plan) is not None
            return replace(plan, damaged=left_out, finished=finished)
    if not live:
        raise UsageError(f"expected rows in {run.source}, found Parquet files without any")
    learn_conditions(store)  # before the first write that only one of several drivers may win
    freeze_spec(resolved, store)
    made = freeze_plan(store, 0 if plan is None else plan.number + 1, live, run.retry_rejected)
    return replace(made, given=run.source, damaged=left_out)


def _carried_over(plan: Plan, live: list[Shard], damaged: Iterable[str], retire_deleted: bool) -> list[Shard]:
    """The planned shards of files that are gone from the source, and the finished ones of files that are damaged now.
    UsageError if a file went before it was done: a plan without it would lose its rows silently."""
    sources, unread = {without_secrets(shard.source) for shard in live}, set(map(without_secrets, damaged))
    absent = [shard for shard in from_table(plan.shards) if shard.source not in sources]
    kept = [shard for shard in absent if (shard.commit in plan.done if shard.source in unread else not retire_deleted)]
    _require_done(plan, kept)
    return kept


def _require_done(plan: Plan, gone: list[Shard]) -> None:
    if (undone := next((shard for shard in gone if shard.commit not in plan.done), None)) is None:
        return
    of_the_file = [shard for shard in gone if shard.source == undone.source]
    rows = sum(shard.rows for shard in of_the_file)
    left = sum(shard.rows for shard in of_the_file if shard.commit not in plan.done)
    raise UsageError(
        f"expected {redact(undone.source)} to stay until it is done, found it gone with {left} of its {rows} rows to "
        "do; put it back unchanged, or drop the rows of all files that are gone (`retire_deleted: true` in the file "
        "of --config)"
    )


def _is_new_retry(store: Store, plan: Plan, run: RestoreRun) -> bool:
    """Whether rejected rows are to be tried again and need a new plan: one that was made for the same codes is resumed
    until it is finished."""
    if not run.retry_rejected:
        return False
    return plan.retried != sorted(run.retry_rejected) or finished_record(store, plan) is not None


def _tried_again(store: Store, plan: Plan, live: list[Shard], codes: set[str]) -> list[Shard]:
    """The shards with their generations: the next one for shards with rows that were rejected for one of the codes."""
    generations = {shard.id: shard.generation for shard in from_table(plan.shards)}
    live = [replace(shard, generation=generations.get(shard.id, 0)) for shard in live]
    if not codes:
        return live
    done = [shard.commit for shard in live if shard.commit in plan.done]
    records = commits.read_commits(store, done)
    again = {name for name, record in zip(done, records, strict=True) if codes & record["rejects"].keys()}
    return [replace(s, generation=s.generation + 1) if s.commit in again else s for s in live]


def _sources_unchanged(plan: Plan) -> bool:
    """Whether the files that are still to be read have not changed since the plan was made."""
    versions = {shard.source: shard.version for shard in plan.todo}
    with ThreadPoolExecutor(PARALLEL_READS) as readers:
        return all(readers.map(lambda source: current_version(source) == versions[source], versions))
