"""`current.json`: the generations of a dataset, which one is current, and what became of the others."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from bfr_models.errors import BfrError
from tasks.runs.layout import POINTER, generation_folder
from tasks.storage.store import Store

_TRIES = 8


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
        return kind_of(name) in map(kind_of, self.rolled_back)

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


@dataclass(frozen=True)
class Comparison:
    """A generation beside the one that was current, which its switch is decided by."""

    old: str
    report: str  # the address of the page
    is_new: bool  # made just now, not found from an earlier run


def address(destination: str, name: str) -> str:
    """Where a generation is."""
    return f"{destination.rstrip('/')}/{generation_folder(name)}"


def kind_of(name: str) -> str:
    """What a generation's name says of its settings: method and digest."""
    return name.partition("-")[2]


def read_pointer(store: Store) -> Pointer:
    """The pointer as it is now; an empty one where there is none yet."""
    return _read(store)[0]


def _read(store: Store) -> tuple[Pointer, str | None]:
    """The pointer, and the version of its file."""
    try:
        version = store.info(POINTER).version  # before the bytes: newer ones then fail the condition
        found = json.loads(store.read(POINTER))
    except FileNotFoundError:
        return Pointer(), None
    names = {key: tuple(found[key]) for key in ("previous", "begun", "rolled_back", "expired")}
    return Pointer(found["generation"], found["source"], **names), version


def update_pointer(store: Store, change: Callable[[Pointer], Pointer]) -> Pointer:
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
