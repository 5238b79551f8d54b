"""Removes what killed attempts left behind: files that no commit names, temporary files, incomplete uploads."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from bfr_models.errors import UsageError
from tasks.runs import commits
from tasks.runs.finished_run import current_run
from tasks.runs.layout import COMMITS, FOLDERS, PACKED, SOURCE, commit_file
from tasks.runs.packed import read_packed
from tasks.runs.plan import Plan, latest_plan
from tasks.storage.redaction import redact
from tasks.storage.store import Leftover, Store

MIN_AGE = timedelta(hours=1)
"""An attempt may still commit a file this old: it puts data, features, rejected and the commit one after the other,
each with retries for five minutes plus the time of the last try."""

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True)
class _Found:
    what: str  # superseded commit, orphan, temporary file, upload
    leftover: Leftover


def vacuum_run(destination: str, older_than: str = "1h", *, dry_run: bool = False) -> dict[str, Any]:
    """Removes leftovers older than `older_than`, or only lists them (`dry_run`).

    Of generations only the current one is looked through. While a run is under way, its superseded commits stay.
    UsageError if there is no run.
    """
    store, age = current_run(destination), parse_age(older_than)
    plan = latest_plan(store)
    found = list(_leftovers(store, plan))
    now = datetime.now(UTC)
    old = [entry for entry in found if now - entry.leftover.made >= age]
    # A plan is written before the first file of its shards. So if it is still the newest after the listing, no file in
    # the listing belongs to a newer one.
    newest = latest_plan(store)
    if newest.number != plan.number:
        raise UsageError(f"expected one plan of {store} from start to end, found a new one; run `bfr vacuum` again")
    if not dry_run:
        for entry in old:
            store.remove(entry.leftover)
    return {
        "destination": redact(store.url()),
        "dry_run": dry_run,
        "removed": [
            {
                "what": entry.what,
                "path": entry.leftover.path,
                "bytes": entry.leftover.size,
                "age_seconds": round((now - entry.leftover.made).total_seconds()),
            }
            for entry in old
        ],
        "bytes": sum(entry.leftover.size for entry in old),
        "too_young": len(found) - len(old),
    }


def parse_age(text: str) -> timedelta:
    """Parses 90m, 2h or 7d. UsageError for other text, and for less than `MIN_AGE`."""
    match = re.fullmatch(r"(\d+)([smhd])", text)
    if not match:
        raise UsageError(f"expected an age like 90m, 2h or 7d, found {text!r}")
    age = timedelta(**{_UNITS[match[2]]: int(match[1])})
    if age < MIN_AGE:
        raise UsageError(
            f"expected at least {MIN_AGE.seconds // 3600}h, found {text}: a younger file may belong to an attempt "
            "that is about to commit it"
        )
    return age


def _leftovers(store: Store, plan: Plan) -> Iterator[_Found]:
    """Commits before the files that they name, since a commit must never name a file that is gone."""
    names = commits.committed(store)
    keep = set[str]()
    for name in sorted(names):
        if plan.todo_count or name in plan.done:
            keep.update(commits.files_of(commits.read_commit(store, name)).values())
    if not plan.todo_count:
        done = {commit_file(name) for name in plan.done}
        for leftover in store.leftovers(COMMITS):
            if leftover.path not in done:
                yield _Found("superseded commit", leftover)
    for folder in FOLDERS:
        for leftover in store.leftovers(folder):
            if leftover.path not in keep:
                yield _Found("orphan", leftover)
    yield from (_Found("unfinished packing", leftover) for leftover in _unfinished_packings(store))
    yield from (_Found("temporary file", leftover) for leftover in store.temporary_files())
    yield from (_Found("upload", leftover) for leftover in store.uploads())


def _unfinished_packings(store: Store) -> Iterator[Leftover]:
    """The files of packings without a record, each as old as the last one that the same packing has written: it may be
    at work for hours."""
    packed = read_packed(store.sub(SOURCE))
    keep = {f"{SOURCE}/{path}" for path in packed.files}
    by_attempt = defaultdict[str, list[Leftover]](list)
    for leftover in store.leftovers(SOURCE) if packed.records else ():
        attempt, _, part = leftover.path.removeprefix(f"{SOURCE}/").partition("/")
        if part and attempt != PACKED and leftover.path not in keep:
            by_attempt[attempt].append(leftover)
    for leftovers in by_attempt.values():
        made = max(leftover.made for leftover in leftovers)
        yield from (replace(leftover, made=made) for leftover in leftovers)
