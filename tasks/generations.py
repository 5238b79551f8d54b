"""Generations of a dataset that is restored again and again: which there are, and which one counts.

    generations/<name>/   a run each, laid out like any other: `bfr verify`, `curate`, ... take its address
    current.json          the pointer: the current generation, all that were ever begun, and what became of them
    comparisons/          <old>..<new>.{json,html}: what the switch to a generation was decided by

A generation belongs to its settings: other weights, options or thresholds are another one, beside the old. All that
is decided about generations is one conditional write of `current.json`, so that of two writers the second sees what
the first has done.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pydantic import Field

from bfr_models.errors import BfrError, UsageError, unknown
from tasks.config.restore import RestoreRun
from tasks.plan_shards import finished_record, latest_plan, settings_digest, settings_of
from tasks.storage.filesystem import redact
from tasks.storage.store import Store

POINTER = "current.json"
_TRIES = 8


class ReprocessRun(RestoreRun):
    """One `bfr reprocess`: a dataset restored again as it changes, in generations below `destination`."""

    retire_deleted: bool = Field(True, description="rows of files that the source no longer holds leave the result")
    leave_out_damaged: bool = Field(
        True, description="go on without source files that do not read, name them, and try them again the next time"
    )
    max_identity_drop: float = Field(
        0.01, ge=0, le=2, description="mean identity that a new generation may lose and still become current"
    )
    max_fid_rise: float = Field(
        0.1, ge=0, description="share by which its Fréchet distance may rise: 0.1 is ten per cent"
    )
    keep_generations: int = Field(
        2, ge=1, description="finished generations that stay, the current one among them; one held back is extra"
    )
    gpu_pool: str | None = Field(None, description="Prefect's concurrency limit to hold while faces are restored")
    credentials: str | None = Field(None, description="Prefect block with the object store's keys")

    def generation(self, name: str) -> RestoreRun:
        """The run of one generation."""
        settings = self.model_dump(include=set(RestoreRun.model_fields))
        return RestoreRun(**settings | {"destination": address(self.destination, name)})


@dataclass(frozen=True)
class Pointer:
    """What `current.json` holds."""

    generation: str | None = None  # the current one
    source: str | None = None  # of all of them
    previous: tuple[str, ...] = ()  # those that were current before it, the last one last
    begun: tuple[str, ...] = ()  # all of them, in order
    rolled_back: tuple[str, ...] = ()  # they, and others of their settings, never become current by themselves
    expired: tuple[str, ...] = ()  # removed, or about to be

    @property
    def live(self) -> list[str]:
        return [name for name in self.begun if name not in self.expired]

    def is_rolled_back(self, name: str) -> bool:
        """Whether it, or an expired one of the same settings, was rolled back."""
        return _kind(name) in map(_kind, self.rolled_back)

    def expirable(self, at_work: str | None) -> list[str]:
        """What may go beside the current one, the first to go first: those that never became current or were rolled
        back, then those that were current before, the oldest first. What schedules work on stays, though it waits or
        was just rolled back: they would restore all of it again."""
        if self.generation is None:
            return []
        newer = self.live[self.live.index(self.generation) + 1 :]
        kept = {self.generation, at_work, *(name for name in newer if name in self.rolled_back[-1:])}
        there = [name for name in self.live if name not in kept]
        before = [name for name in self.previous if name in there]
        return [name for name in there if name not in before] + before


def address(destination: str, name: str) -> str:
    """Where a generation is."""
    return f"{destination.rstrip('/')}/generations/{name}"


def _kind(name: str) -> str:
    """What a generation's name says of its settings: method and digest."""
    return name.partition("-")[2]


def read_pointer(store: Store) -> Pointer:
    """The pointer as it is now; an empty one where there is none yet."""
    return _read(store)[0]


def choose_generation(run: ReprocessRun) -> str:
    """The name of the generation of these settings: the newest that has them, begun here if there is none.

    UsageError where the destination is something else, or of another source.
    """
    store, settings = Store(run.destination), settings_of(run)
    if store.exists("plan/spec.json"):
        raise UsageError(f"expected generations at {store!r}, found a run of `bfr restore`; use another destination")

    kind = f"{run.method}-{settings_digest(settings)}"

    def begin(pointer: Pointer) -> Pointer:
        if pointer.source not in (None, settings["source"]):
            raise UsageError(
                f"expected the source {pointer.source} of the generations at {store!r}, found {settings['source']}; "
                "use another destination"
            )
        if kind in map(_kind, pointer.live):
            return pointer
        name = f"{len(pointer.begun) + 1:04d}-{kind}"
        return replace(pointer, source=settings["source"], begun=(*pointer.begun, name))

    return next(name for name in reversed(_update(store, begin).live) if _kind(name) == kind)


def switch_generation(destination: str, name: str, *, force: bool = False, instead_of: str | None = None) -> Pointer:
    """Makes a finished generation the current one. UsageError for one that is not finished and, unless forced, that
    was rolled back, or not compared with the current one, or lost that; BfrError if `instead_of` is no longer
    current."""
    store = Store(destination)

    def switch(pointer: Pointer) -> Pointer:
        if name not in pointer.live:
            raise unknown("generation", name, pointer.live)
        if name == pointer.generation:
            return pointer
        if instead_of is not None and pointer.generation != instead_of:
            raise BfrError(f"expected {instead_of} to be current, found {pointer.generation}; run the command again")
        _require_finished(store, name)
        if not force and (why := reasons_against(store, pointer, name)):
            raise UsageError(f"{name} was held back: {'; '.join(why)}; --force makes it current all the same")
        if not force and pointer.generation is not None and not store.exists(_comparison(pointer, name)):
            raise UsageError(
                f"expected a comparison of {name} with {pointer.generation}, found none; `bfr reprocess` with its "
                "settings makes it, --force makes it current without"
            )
        was = () if pointer.generation is None else (pointer.generation,)
        before = tuple(old for old in (*pointer.previous, *was) if old != name)
        rolled_back = tuple(old for old in pointer.rolled_back if _kind(old) != _kind(name))
        return replace(pointer, generation=name, previous=before, rolled_back=rolled_back)

    return _update(store, switch)


def reasons_against(store: Store, pointer: Pointer, name: str) -> list[str]:
    """Why a generation does not become current by itself; nothing where it may."""
    if pointer.is_rolled_back(name):
        return ["it was rolled back"]
    if pointer.generation is None or not store.exists(_comparison(pointer, name)):
        return []
    found: list[str] = json.loads(store.read(_comparison(pointer, name)))["reasons"]
    return found


def _comparison(pointer: Pointer, name: str) -> str:
    return f"comparisons/{pointer.generation}..{name}.json"


def rollback_generation(destination: str) -> Pointer:
    """Makes the one before the current generation current again. UsageError where there is none, or it has more to
    do."""
    store = Store(destination)

    def back(pointer: Pointer) -> Pointer:
        there = [name for name in pointer.previous if name in pointer.live]
        if pointer.generation is None or not there:
            raise UsageError(f"expected a generation before {pointer.generation} at {store!r}, found none")
        _require_finished(store, there[-1])
        rolled_back = (*pointer.rolled_back, pointer.generation)
        return replace(pointer, generation=there[-1], previous=tuple(there[:-1]), rolled_back=rolled_back)

    return _update(store, back)


def expire_generations(destination: str, keep: int, at_work: str | None = None) -> list[str]:
    """Removes finished generations until `keep` are left, the current one among them, in the order of
    `Pointer.expirable`; never one in progress. Returns the names of those that went."""
    if keep < 1:
        raise UsageError(f"expected to keep at least 1 generation, found {keep}")
    store = Store(destination)
    finished = {name for name in read_pointer(store).live if _record(store, name) is not None}

    def expire(pointer: Pointer) -> Pointer:
        others = [name for name in pointer.expirable(at_work) if name in finished]
        return replace(pointer, expired=(*pointer.expired, *others[: max(0, len(others) + 1 - keep)]))

    before = set(read_pointer(store).expired)
    pointer = _update(store, expire)
    for name in pointer.expired:  # those of a call that was killed as well
        folder = f"generations/{name}"
        files = store.list(folder)
        for path in sorted(files, key=lambda path: not path.endswith("/run.json")):  # no half of it looks finished
            store.delete(path)
    return [name for name in pointer.expired if name not in before]


def list_generations(destination: str) -> list[dict[str, Any]]:
    """Name, state (current, finished, unfinished), whether it was rolled back, and the totals of each."""
    store = Store(destination)
    pointer = read_pointer(store)
    if not pointer.begun:
        raise UsageError(f"expected generations at {store!r}, found none; `bfr reprocess` makes the first")
    return [_facts(store, pointer, name) for name in pointer.live]


def _facts(store: Store, pointer: Pointer, name: str) -> dict[str, Any]:
    record = _record(store, name) or {}
    state = "current" if name == pointer.generation else "finished" if record else "unfinished"
    why = [] if state != "finished" else reasons_against(store, pointer, name)
    totals = record.get("totals", {})
    return {
        "name": name,
        "state": state,
        "held_back": why,
        "rows": totals.get("rows"),
        "restored": totals.get("restored"),
        "finished": record.get("finished"),
        "address": redact(store.url(f"generations/{name}")),
    }


def _require_finished(store: Store, name: str) -> None:
    if _record(store, name) is None:
        raise UsageError(f"expected a finished generation, found that {name} is not; `bfr reprocess` goes on with it")


def _record(store: Store, name: str) -> dict[str, Any] | None:
    """run.json of a generation; None where it is not finished, or has more to do."""
    run = store.sub(f"generations/{name}")
    if not run.exists("run.json"):
        return None
    return finished_record(run, latest_plan(run))


def _read(store: Store) -> tuple[Pointer, str | None]:
    """The pointer, and the version of its file."""
    try:
        version = store.info(POINTER).version  # before the bytes: newer ones then fail the condition
        found = json.loads(store.read(POINTER))
    except FileNotFoundError:
        return Pointer(), None
    names = {key: tuple(found[key]) for key in ("previous", "begun", "rolled_back", "expired")}
    return Pointer(found["generation"], found["source"], **names), version


def _update(store: Store, change: Callable[[Pointer], Pointer]) -> Pointer:
    """Writes what `change` makes of the pointer; again of the newer one if another writer was faster."""
    for _ in range(_TRIES):
        pointer, version = _read(store)
        changed = change(pointer)
        if changed == pointer:
            return pointer
        written = asdict(changed) | {"written": datetime.now(UTC).isoformat(timespec="seconds"), "by": uuid.uuid4().hex}
        if store.replace(POINTER, json.dumps(written, indent=2).encode(), version):
            return changed
    raise BfrError(f"{store!r}: others changed {POINTER} {_TRIES} times in a row; run the same command again")
