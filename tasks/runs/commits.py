"""The commit protocol: work at least once, results exactly once. infra/COMMIT_PROTOCOL.md argues why it holds.

    1. put the shard's files under names that no other attempt uses
    2. check that the live plan still has the shard: a late attempt at a superseded shard ends here
    3. put `commits/<shard>.json`, create-only: the first attempt to get there has done the shard
    4. an attempt that loses removes its own files and adopts the winner's record

Files come before the record, so that a record never promises what is not there: an attempt killed before 3 leaves
orphans, which mean nothing and which `vacuum` removes. The record is create-only because a dispatcher cannot tell a
dead worker from a slow one: two attempts at one shard may finish, and the store alone decides which of them counts.
Nothing is renamed or locked, and no clock is trusted: object stores rename by copying, and locks outlive their holders.

A shard that is tried again (`--retry-rejected`) has a new generation, with a record of its own:
`commits/<shard>.<generation>.json`. The live plan says which generation counts.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from bfr_models.errors import BfrError
from tasks.config.code import this_process
from tasks.runs.layout import COMMITS, FEATURES, FOLDERS, commit_file, shard_file
from tasks.runs.sealed import read_json, seal
from tasks.runs.shards import Shard
from tasks.storage.redaction import without_secrets
from tasks.storage.store import PARALLEL_READS, Store

Record = dict[str, Any]

_READ_AHEAD = 1024  # records held in memory: a run may have millions


def commit_shard(
    store: Store,
    shard: Shard,
    files: Mapping[str, bytes],
    facts: Mapping[str, Any],
    require_live: Callable[[], None] = lambda: None,
    late_facts: Callable[[], Mapping[str, Any]] = dict,
) -> Record:
    """Publishes one attempt at a shard; returns the record that counts, ours or that of an earlier winner.

    `files` maps a folder of the run (`data`, `rejected`) to the bytes of its Parquet file. `require_live` raises if the
    shard no longer counts; it is called right before the record is put, to leave the shortest gap between the two.
    `late_facts` are those that are known once the files are there, such as how long that took.
    """
    attempt, name = uuid.uuid4().hex[:12], shard.commit
    entries: dict[str, dict[str, Any]] = {}
    for folder, data in files.items():
        path = shard_file(folder, name, attempt)
        store.write(path, data, private=folder == FEATURES)  # biometric data, where embeddings are kept
        entries[folder] = {"path": path, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    made = {
        "shard": shard.id,
        "generation": shard.generation,
        "attempt": attempt,
        "files": entries,
        "place": _place(shard),
        "process": this_process(),
        "committed": datetime.now(UTC).isoformat(timespec="seconds"),
        **facts,
        **late_facts(),
    }
    record = seal(made)
    try:
        require_live()
    except BfrError:
        _remove(store, record)
        raise
    if store.create(commit_file(name), json.dumps(record).encode()):
        return record
    # "Exists" may mean our own put, whose response was lost: only the attempt in the record tells.
    winner = read_commit(store, name)
    if winner["attempt"] != attempt:
        _remove(store, record)
    return winner


def _place(shard: Shard) -> dict[str, Any]:
    """Enough to plan the shard again."""
    place = asdict(shard) | {"source": without_secrets(shard.source)}
    del place["own"]  # decided anew by who reads it
    return place


def _remove(store: Store, record: Record) -> None:
    """Removes the files of an attempt that does not count."""
    for path in files_of(record).values():
        with suppress(OSError):  # an orphan is harmless, and `vacuum` removes it
            store.delete(path)


def committed(store: Store) -> set[str]:
    """The names of all commits, by one listing."""
    names = (path.rpartition("/")[2] for path in store.list(COMMITS))
    return {name.removesuffix(".json") for name in names if name.endswith(".json")}


def read_commit(store: Store, name: str) -> Record:
    """The record of a committed shard. DamagedError if it is not what was written."""
    return read_json(store, commit_file(name))


def read_commits(store: Store, names: Iterable[str]) -> Iterator[Record]:
    """The records of many shards, in the given order, read in parallel."""
    left = iter(names)
    with ThreadPoolExecutor(PARALLEL_READS) as readers:
        while some := list(islice(left, _READ_AHEAD)):
            yield from readers.map(lambda name: read_commit(store, name), some)


def orphans(store: Store, live: set[str], keep: set[str]) -> list[str]:
    """The commits that are no longer live, then the files that no live record names.

    Call it only when every live shard is committed: before that, a file may belong to an attempt in progress.
    """
    dead = sorted(committed(store) - live)
    files = [path for folder in FOLDERS for path in store.list(folder) if path not in keep]
    return [commit_file(name) for name in dead] + files


def vacuum(store: Store, paths: Iterable[str]) -> None:
    """Removes orphans in the given order: a commit before its files, or it would promise what is gone."""
    for path in paths:
        store.delete(path)


def files_of(record: Record) -> dict[str, str]:
    """The files that a record names, by folder."""
    return {folder: entry["path"] for folder, entry in record["files"].items()}
