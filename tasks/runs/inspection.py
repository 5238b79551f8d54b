"""A whole run, looked at file by file: what `verify` says and `repair` goes by. Needs only the destination."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise

from bfr_models.errors import UsageError
from tasks.runs.commits import files_of
from tasks.runs.damage import Damage, Inspection, derived_damage, inspect_shards, newest_plan
from tasks.runs.layout import COMMITS, DATA, FOLDERS, MANIFEST, RECORD, REJECTED, SOURCE, SPEC, plan_file
from tasks.runs.manifest import read_manifest
from tasks.runs.plan import Plan, find_plan
from tasks.runs.record import RunRecord, read_record
from tasks.runs.reviews import count_decisions
from tasks.runs.sealed import DamagedError
from tasks.runs.shards import Shard, from_table, is_version_of, source_file
from tasks.runs.single_writer import stored_conditions
from tasks.runs.spec import Settings, read_spec, settings_digest, settings_of_commits
from tasks.storage.redaction import redact
from tasks.storage.store import PARALLEL_READS, Store

_SHOWN_SHARDS = 3  # examples in a problem's detail


@dataclass
class Counts:
    """What the files of the live commits hold."""

    rows: int = 0
    restored: int = 0
    rejected: int = 0
    files: int = 0
    bytes: int = 0
    decisions: int = 0  # faces that reviewers have decided about

    def add(self, found: Inspection) -> None:
        self.restored, self.rejected = self.restored + found.restored, self.rejected + found.rejected
        self.rows = self.restored + self.rejected
        self.files, self.bytes = self.files + found.files, self.bytes + found.bytes


@dataclass
class Findings:
    """What is there of a run, and what is wrong with it."""

    plan: Plan | None
    settings: Settings | None
    record: RunRecord | None  # run.json, whichever plan it is of
    counts: Counts = field(default_factory=Counts)
    problems: list[Damage] = field(default_factory=list)


def inspect_run(store: Store) -> Findings:
    """Reads every file that a live commit names, and every record. UsageError if there is no run."""
    plan, problems = _plan(store)
    settings, wrong = _settings(store, plan)
    problems += wrong
    try:
        record = read_record(store)
    except DamagedError as error:
        record = None
        problems.append(Damage("record_damaged", RECORD, f"found {error.found}"))
    found = Findings(plan, settings, record, problems=problems)
    if plan is None:
        return found
    keep = set[str]()
    found.problems += [*_plan_problems(plan), *_source_problems(plan)]
    found.counts.decisions, unread = count_decisions(store)
    found.problems += [Damage("review_damaged", error.path, f"found {error.found}") for error in unread]
    for shard in inspect_shards(store, plan, settings, deep=True):
        found.problems += shard.damage
        found.counts.add(shard)
        keep.update(files_of(shard.record).values() if shard.record else ())
    if not plan.todo_count and not any(one.where == RECORD for one in problems):
        found.problems += _ending(store, plan, record, keep, found.counts)
    return found


def _plan(store: Store) -> tuple[Plan | None, list[Damage]]:
    """The live plan, and what is wrong with it. UsageError if there is no run."""
    try:
        plan = find_plan(store)
    except DamagedError as error:
        return None, [Damage("plan_damaged", error.path, f"found {error.found}")]
    if plan is None and not store.list(COMMITS):
        raise UsageError(f"expected a run at {store}, found no plan there; name the DST of a `bfr restore`")
    if plan is None:
        return None, [Damage("plan_missing", plan_file(0), "expected the plan that these commits were made for")]
    if (number := newest_plan(store, plan)) > plan.number:
        return plan, [Damage("plan_missing", plan_file(number), f"plan {plan.number} is the newest that is there")]
    return plan, []


def _settings(store: Store, plan: Plan | None) -> tuple[Settings | None, list[Damage]]:
    """The run's settings, and what is wrong with the records beside the plan."""
    problems = []
    try:
        stored_conditions(store)
    except FileNotFoundError:
        pass  # asked again by whoever needs the answer
    except DamagedError as error:
        problems.append(Damage("storage_damaged", error.path, f"found {error.found}"))
    planned = {} if plan is None else plan.made_by.get("settings", {})
    try:
        settings = read_spec(store)
    except FileNotFoundError:
        return planned or None, [*problems, Damage("spec_missing", SPEC, "expected the settings of this run")]
    except DamagedError as error:
        return planned or None, [*problems, Damage("spec_damaged", SPEC, f"found {error.found}")]
    if plan is None or not planned or settings_digest(planned) == settings_digest(settings):
        return settings, problems
    if settings_of_commits(store) == {settings_digest(settings)}:
        detail = "expected the plan of these settings and commits, found another run's"
        return settings, [*problems, Damage("plan_misplaced", plan_file(plan.number), detail)]
    problems.append(Damage("spec_changed", SPEC, "expected the settings that the plan was made with, found others"))
    return planned, problems


def _plan_problems(plan: Plan) -> Iterator[Damage]:
    """Shards that overlap, that leave out rows of their file, or that are not done."""
    by_file = defaultdict[str, list[Shard]](list)
    missing = []
    for shard in from_table(plan.shards):
        by_file[f"{shard.source} {shard.version}"].append(shard)
        if shard.commit not in plan.done:
            missing.append(shard.commit)
    for shards in by_file.values():
        shards.sort(key=lambda shard: shard.first_row)
        for before, after in pairwise(shards):
            if after.picked is None and before.first_row + before.rows != after.first_row:
                detail = f"expected rows from {before.first_row + before.rows}, found {after.first_row}"
                yield Damage("plan_broken", redact(after.source), detail)
    if missing:
        names = ", ".join(missing[:_SHOWN_SHARDS]) + (", ..." if len(missing) > _SHOWN_SHARDS else "")
        detail = f"{len(missing)} of {plan.shards.num_rows} shards have no commit: {names}; run the command again"
        yield Damage("unfinished", f"{COMMITS}/", detail)


def _source_problems(plan: Plan) -> Iterator[Damage]:
    """The files that were packed into the run, if any are gone or of another size than when they were planned."""
    own = {shard.source: shard for shard in from_table(plan.shards) if shard.own}
    with ThreadPoolExecutor(PARALLEL_READS) as readers:
        for shard, found in zip(own.values(), readers.map(source_file, own), strict=True):
            where = f"{SOURCE}/{shard.name}"
            if found is None:
                yield Damage("source_missing", where, "expected the images that were packed into the run")
            elif not is_version_of(shard, found):
                yield Damage("source_changed", where, f"expected version {shard.version}, found {found.size} bytes")


def _ending(store: Store, plan: Plan, record: RunRecord | None, keep: set[str], counts: Counts) -> Iterator[Damage]:
    """Checks a finished run as a whole: its totals, its manifest, and that no file is without a commit."""
    if record is None or record.get("plan") != plan.number:
        yield Damage("unfinished", RECORD, "all shards are done, but the run is not finished; run the command again")
        return
    for path in (path for folder in FOLDERS for path in store.list(folder)):
        if path not in keep:
            yield Damage("file_extra", path, "no commit names it; `bfr vacuum` removes it")
    wanted = ("rows", "restored", "rejected")
    totals = {name: record.get("totals", {}).get(name) for name in wanted}
    if totals != (found := {name: getattr(counts, name) for name in wanted}):
        yield Damage("totals_differ", RECORD, f"expected {found}, found {totals}")
    yield from (derived := list(derived_damage(store, plan)))
    if any(one.where == MANIFEST for one in derived):
        return
    named = {entry[folder] for folder in (DATA, REJECTED) for entry in read_manifest(store) if entry[folder]}
    if not named <= keep:
        yield Damage("manifest_differs", MANIFEST, f"no commit names {sorted(named - keep)[:_SHOWN_SHARDS]}")
