"""The commit protocol: work at least once, results exactly once.

    1. put the shard's files under names that no other attempt uses
    2. put `commits/<shard>.json`, create-only: the first attempt that gets there has done the shard
    3. whoever loses removes its own files and adopts the winner's record

Killed before 2, an attempt leaves orphans that `vacuum` removes; nothing is ever renamed or locked, and no
clock is trusted. A store may say "exists" after a lost response to our own put, so the record is read
back and the attempt compared.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import Any

from tasks._storage import Store

Record = dict[str, Any]
FOLDERS = ("data", "rejected")

_READERS = 16
_READ_AHEAD = 1024  # records in memory, of perhaps millions


def commit_shard(store: Store, shard_id: str, files: Mapping[str, bytes], facts: Mapping[str, Any]) -> Record:
    """Publishes one attempt at a shard; returns the record that counts, ours or an earlier winner's.

    `files` maps a folder of the run (`data`, `rejected`) to the bytes of its Parquet file.
    """
    attempt = uuid.uuid4().hex[:12]
    entries: dict[str, dict[str, Any]] = {}
    for folder, data in files.items():
        path = f"{folder}/{shard_id}-{attempt}.parquet"
        store.write(path, data)
        entries[folder] = {"path": path, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    record = {"shard": shard_id, "attempt": attempt, "files": entries, **facts}
    if store.create(_path(shard_id), json.dumps(record).encode()):
        return record
    winner = read_commit(store, shard_id)
    if winner["attempt"] != attempt:
        for entry in entries.values():
            with suppress(OSError):  # an orphan is harmless: vacuum gets it
                store.delete(entry["path"])
    return winner


def committed_shards(store: Store) -> set[str]:
    """Ids of the shards that are done: one listing."""
    names = (path.rpartition("/")[2] for path in store.list("commits"))
    return {name.removesuffix(".json") for name in names if name.endswith(".json")}


def read_commit(store: Store, shard_id: str) -> Record:
    """The record of a shard that is done."""
    record: Record = json.loads(store.read(_path(shard_id)))
    return record


def read_commits(store: Store, shard_ids: Iterable[str]) -> Iterator[Record]:
    """The records of many shards, in the given order, read side by side."""
    left = iter(shard_ids)
    with ThreadPoolExecutor(_READERS) as readers:
        while some := list(islice(left, _READ_AHEAD)):
            yield from readers.map(lambda shard_id: read_commit(store, shard_id), some)


def orphans(store: Store, live: set[str], keep: set[str]) -> list[str]:
    """The commits of shards that are no longer live, then the files that no live record names.

    Only when every live shard is committed: before that, a file may belong to an attempt under way.
    """
    dead = sorted(committed_shards(store) - live)
    files = [path for folder in FOLDERS for path in store.list(folder) if path not in keep]
    return [_path(shard_id) for shard_id in dead] + files


def vacuum(store: Store, paths: Iterable[str]) -> None:
    """Removes orphans in their order: a commit goes before its files, else it would promise what is gone."""
    for path in paths:
        store.delete(path)


def _path(shard_id: str) -> str:
    return f"commits/{shard_id}.json"
