"""How a run is mended: shards are done again under their next generation, and a plan that is gone is made again.

A commit is never replaced and nothing is removed over a mismatch: what was found damaged is copied to `damaged/` before
anything takes its place. infra/COMMIT_PROTOCOL.md argues why that is safe beside other drivers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from bfr_models.errors import UsageError
from tasks.runs.commits import Record, committed, read_commit
from tasks.runs.layout import FOLDERS, commit_file, commit_name, damaged_file
from tasks.runs.plan import Plan, freeze_plan
from tasks.runs.sealed import DamagedError
from tasks.runs.shards import Shard, from_table, recognised
from tasks.storage.redaction import redact, without_secrets
from tasks.storage.store import Store


def retire(store: Store, plan: Plan, commits: Collection[str], made_by: Mapping[str, Any]) -> Plan:
    """The next plan, in which the shards of these commits are to be done again; all others stay as they are. If another
    driver has planned meanwhile, its plan."""
    keep_copies(store, commits)
    shards = next_generations(store, list(from_table(plan.shards)), commits)
    return replace(freeze_plan(store, plan.number + 1, shards, plan.retried, made_by), given=plan.given)


def next_generations(store: Store, shards: list[Shard], commits: Collection[str]) -> list[Shard]:
    """The shards, those of these commits in a generation that no commit has had yet."""
    if not commits:
        return shards
    latest = _generations(committed(store))
    return [
        replace(shard, generation=max(shard.generation, latest.get(shard.id, 0)) + 1)
        if shard.commit in commits
        else shard
        for shard in shards
    ]


def keep_copies(store: Store, commits: Collection[str]) -> None:
    """Copies what there is of these commits. They and their files are removed when the run is closed, as are all that
    the live plan has superseded."""
    if not commits:
        return
    there = [path for folder in FOLDERS for path in store.list(folder)]
    for path in [*map(commit_file, commits), *(path for path in there if _commit_of(path) in commits)]:
        keep_copy(store, path)


def keep_copy(store: Store, path: str) -> str | None:
    """Copies a file to `damaged/`, under a name with its content's hash, so that no copy replaces another. Returns the
    name; None if the file is not there."""
    try:
        data = store.read(path)
    except FileNotFoundError:
        return None
    copy = damaged_file(path, hashlib.sha256(data).hexdigest()[:8])
    store.write(copy, data)
    return copy


def shards_by_commits(store: Store, live: list[Shard]) -> list[Shard]:
    """What a plan that is gone must have held: the shards of the source as it is now, in the generations that were
    committed last, and the committed shards of files that the source no longer has.

    UsageError if a commit of such a file does not say where its rows were: those of older versions do not.
    """
    latest = _generations(committed(store))
    ids = {shard.id for shard in live}
    others = list(_records(store, [commit_name(*named) for named in latest.items() if named[0] not in ids]))
    live = recognised(live, [_shard_of(record["place"], own=True) for record in others if record.get("place")])
    ids = {shard.id for shard in live}
    known = [replace(shard, generation=latest.get(shard.id, 0)) for shard in live]
    places = {url for shard in live for url in (without_secrets(shard.source), redact(shard.source))}
    gone = (record for record in others if record["shard"] not in ids and record.get("source") not in places)
    return known + list(_shards_of_gone_files(list(gone)))


def _records(store: Store, names: list[str]) -> Iterator[Record]:
    for name in names:
        try:
            yield read_commit(store, name)
        except DamagedError:
            keep_copies(store, [name])  # of which file it was, nothing says


def _shards_of_gone_files(records: list[Record]) -> Iterator[Shard]:
    """The shards of each file's version that was planned last."""
    versions: dict[str, tuple[int, str]] = {}
    for record in records:
        if not (place := record.get("place")):
            raise UsageError(
                f"expected {record.get('source')} to plan the run again, found it gone, and rows of it done by a "
                f"version that did not note where they were ({record.get('shard')}); put the file back as it was"
            )
        versions[place["source"]] = max(versions.get(place["source"], (-1, "")), (place["plan"], place["version"]))
    for record in records:
        if versions[record["place"]["source"]][1] == record["place"]["version"]:
            yield _shard_of(record["place"])


def _shard_of(place: Mapping[str, Any], *, own: bool = False) -> Shard:
    """The shard of a commit, as its record has it."""
    return Shard(**{**place, "plan": 0, "own": own})


def _generations(names: Collection[str]) -> dict[str, int]:
    """The latest generation of each shard that has a commit, by id."""
    latest: dict[str, int] = {}
    for name in names:
        shard_id, _, number = name.partition(".")
        with suppress(ValueError):  # a file of another name is no commit
            latest[shard_id] = max(latest.get(shard_id, 0), int(number or 0))
    return latest


def _commit_of(path: str) -> str:
    """data/<commit>-<attempt>.parquet -> <commit>"""
    return path.rpartition("/")[2].rpartition("-")[0]
