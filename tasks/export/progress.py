"""How far an export is: `.bfr-export/` in its folder has what was asked for, and the files of each shard that is done.

The record of a shard is written after its files, so a call that was killed goes on where it stopped. Names are given
once: those of a shard that is done are not given to another.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from bfr_models.errors import UsageError
from tasks.export.names import Names
from tasks.export.rows import ExportRun
from tasks.storage.redaction import redact
from tasks.storage.store import PARALLEL_READS, Store

FOLDER = ".bfr-export"
_REQUEST = f"{FOLDER}/export.json"

CHANGED, UNCHANGED, REJECTED, MISSING = "changed", "unchanged", "rejected", "missing"


@dataclass(frozen=True)
class Exported:
    """A picture that is done: what became of it, and its files."""

    state: str
    files: list[str] = field(default_factory=list)  # of its own, or the tar file that it is in
    key: str = ""  # there


Done = list[Exported]
"""The pictures of a shard, in order."""


class Progress:
    """The records of an export, and the names that it has given."""

    def __init__(self, store: Store, run: ExportRun, asked: dict[str, Any], *, overwrite: bool) -> None:
        """UsageError if the folder has something that this same command has not made, and may not be replaced."""
        self._store, self._run = store, run
        request = {"settings": run.settings, "asked": asked}
        there = set(store.list())
        if _REQUEST in there and json.loads(store.read(_REQUEST)) != request:
            self._refuse("another export", overwrite)
            for path in sorted(there):
                if path.startswith(f"{FOLDER}/"):
                    store.delete(path)
            there = {path for path in there if not path.startswith(f"{FOLDER}/")}
        elif there and _REQUEST not in there:
            self._refuse(f"{min(there)} and {len(there) - 1} other files", overwrite)
        store.write(_REQUEST, json.dumps(request, indent=2).encode())
        self._there = there
        self.names = Names(ignores_case=_ignores_case(store))
        with ThreadPoolExecutor(PARALLEL_READS) as readers:
            names = [name for name in map(self._name, range(len(run.shards))) if name in there]
            self._done = dict(zip(names, readers.map(self._read, names), strict=True))
        done = [one for shard in self._done.values() for one in shard]
        self.names.take(path for one in done for path in (*one.files, *filter(None, [one.key])))

    def _refuse(self, found: str, overwrite: bool) -> None:
        if not overwrite:
            raise UsageError(
                f"expected an empty folder or what this same export has made at {redact(self._store.url())}, found "
                f"{found}; choose another folder, or write over what has the same names with --overwrite"
            )

    def done(self, number: int) -> Done:
        """The pictures of a shard that is done; none if it is to do."""
        return self._done.get(self._name(number), [])

    def is_there(self, exported: Exported) -> bool:
        """Whether a picture that was done is still done."""
        return exported.state != MISSING and self._there.issuperset(exported.files)

    def note(self, number: int, done: Done) -> None:
        """A shard is done."""
        self._store.write(self._name(number), json.dumps([asdict(one) for one in done]).encode())

    def _read(self, name: str) -> Done:
        return [Exported(**one) for one in json.loads(self._store.read(name))]

    def _name(self, number: int) -> str:
        """Other rows of the shard have been superseded since: its pictures are others, under another name."""
        shard, entry = self._run.shards[number]
        old = self._run.superseded_in(number)
        digest = f"-{hashlib.sha256(json.dumps(old).encode()).hexdigest()[:12]}" if old else ""
        return f"{FOLDER}/{shard.commit}-{entry['attempt']}{digest}.json"


def _ignores_case(store: Store) -> bool:
    """Whether the folder takes names that differ in case only for one file, as the disks of Windows and macOS do."""
    probe = f"{FOLDER}/Probe-{uuid.uuid4().hex}"
    store.write(probe, b"")
    try:
        return store.exists(probe.lower())
    finally:
        store.delete(probe)
