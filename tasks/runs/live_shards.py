"""The shards as they are to be now: those of the source, with what a plan before has of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from bfr_models.errors import UsageError
from tasks.config.restore import RestoreRun
from tasks.runs import commits
from tasks.runs.listing import list_source
from tasks.runs.mending import next_generations
from tasks.runs.plan import Plan, find_plan, finished_record
from tasks.runs.shards import Shard, from_table, recognised
from tasks.storage.redaction import redact, without_secrets
from tasks.storage.store import Store


def shards_to_be(run: RestoreRun, store: Store) -> tuple[list[Shard], frozenset[str]]:
    """The shards as a plan that is made now would have them, and the commits of those that are done. Writes nothing."""
    plan = find_plan(store)
    if plan is None:
        return list_source(run)[0], frozenset()
    retry: set[str] = set(run.retry_rejected) if is_new_retry(store, plan, run) else set()
    return live_shards(store, plan, run, retry, set())[0], plan.done


def live_shards(
    store: Store, plan: Plan | None, run: RestoreRun, retry: set[str], broken: set[str]
) -> tuple[list[Shard], tuple[str, ...]]:
    """The shards as they are to be now, those of the source among them, and what was left out of the source."""
    live, damaged = list_source(run)
    left_out = tuple(f"left out: {redact(url)} does not read ({why})" for url, why in damaged.items())
    if plan is not None:
        live = recognised(live, from_table(plan.shards))
        kept = _carried_over(plan, live, damaged, run.retire_deleted)
        live = kept + _tried_again(store, plan, live, retry, broken)
    return live, left_out


def is_new_retry(store: Store, plan: Plan, run: RestoreRun) -> bool:
    """Whether rejected rows are to be tried again and need a new plan: one that was made for the same codes is resumed
    until it is finished."""
    if not run.retry_rejected:
        return False
    return plan.retried != sorted(run.retry_rejected) or finished_record(store, plan) is not None


def _carried_over(plan: Plan, live: list[Shard], damaged: Iterable[str], retire_deleted: bool) -> list[Shard]:
    """The planned shards of files that are gone from the source, and the finished ones of files that are damaged now.
    UsageError if a file went before it was done: a plan without it would lose its rows silently."""
    sources, unread = {without_secrets(shard.source) for shard in live}, set(map(without_secrets, damaged))
    planned = [(shard, without_secrets(shard.source)) for shard in from_table(plan.shards)]
    absent = [(shard, source) for shard, source in planned if source not in sources]
    kept = [s for s, source in absent if (s.commit in plan.done if source in unread else not retire_deleted)]
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


def _tried_again(store: Store, plan: Plan, live: list[Shard], codes: set[str], broken: set[str]) -> list[Shard]:
    """The shards with their generations: the next one for shards with rows that were rejected for one of the codes, or
    whose commit does not hold."""
    generations = {shard.id: shard.generation for shard in from_table(plan.shards)}
    live = [replace(shard, generation=generations.get(shard.id, 0)) for shard in live]
    done = [shard.commit for shard in live if codes and shard.commit in plan.done]
    records = commits.read_commits(store, done)
    again = {name for name, record in zip(done, records, strict=True) if codes & record["rejects"].keys()}
    return next_generations(store, live, again | broken)
