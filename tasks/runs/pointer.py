"""`current.json`: the generations of a dataset, which of them is current, and what became of the others."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from bfr_models.errors import BfrError
from tasks.runs.layout import POINTER, generation_folder
from tasks.runs.sealed import damaged, read_json
from tasks.storage.store import Store

_TRIES = 8  # conditional writes before giving up; each that fails means that another writer got through


@dataclass(frozen=True)
class Pointer:
    """What `current.json` holds."""

    generation: str | None = None  # the current one
    source: str | None = None  # the dataset that all generations restore
    previous: tuple[str, ...] = ()  # those that were current before, the latest last
    begun: tuple[str, ...] = ()  # all generations, in order
    rolled_back: tuple[str, ...] = ()  # generations with their settings become current by force only
    expired: tuple[str, ...] = ()  # removed, or about to be

    @property
    def live(self) -> list[str]:
        return [name for name in self.begun if name not in self.expired]

    def is_rolled_back(self, name: str) -> bool:
        """Whether this generation, or an expired one with the same settings, was rolled back."""
        return kind_of(name) in map(kind_of, self.rolled_back)

    def expirable(self, at_work: str | None) -> list[str]:
        """The generations that may be removed, in the order to do so: first those that never became current or were
        rolled back, then former current ones, oldest first.

        The current generation stays, and so do the one `at_work` and the one that was rolled back last: the schedule
        that keeps them up to date would restore all of it again.
        """
        if self.generation is None:
            return []
        newer = self.live[self.live.index(self.generation) + 1 :]
        kept = {self.generation, at_work, *(name for name in newer if name in self.rolled_back[-1:])}
        there = [name for name in self.live if name not in kept]
        before = [name for name in self.previous if name in there]
        return [name for name in there if name not in before] + before


@dataclass(frozen=True)
class Comparison:
    """A new generation compared with the current one; decides whether it becomes current."""

    old: str
    report: str  # the address of the page
    is_new: bool  # made by this run, not left by an earlier one


def address(destination: str, name: str) -> str:
    """The address of a generation's run."""
    return f"{destination.rstrip('/')}/{generation_folder(name)}"


def kind_of(name: str) -> str:
    """The part of a generation's name that stands for its settings: method and digest."""
    return name.partition("-")[2]


def read_pointer(store: Store) -> Pointer:
    """The pointer as it is now; an empty one if there is none yet."""
    return _read(store)[0]


def _read(store: Store) -> tuple[Pointer, str | None]:
    """The pointer, and the version of its file."""
    try:
        version = store.info(POINTER).version  # before the bytes: if they are newer, the conditional write fails
        found = read_json(store, POINTER)
    except FileNotFoundError:
        return Pointer(), None
    try:
        names = {key: tuple(found[key]) for key in ("previous", "begun", "rolled_back", "expired")}
        return Pointer(found["generation"], found["source"], **names), version
    except (KeyError, TypeError) as error:
        raise damaged(store, POINTER, f"a record without a sound {error}") from None


def update_pointer(store: Store, change: Callable[[Pointer], Pointer]) -> Pointer:
    """Applies `change` to the pointer and writes it; starts again from the newer one if another writer was faster."""
    for _ in range(_TRIES):
        pointer, version = _read(store)
        changed = change(pointer)
        if changed == pointer:
            return pointer
        # `by` makes every write unique: `Store.replace` recognises its own put by the bytes.
        written = asdict(changed) | {"written": datetime.now(UTC).isoformat(timespec="seconds"), "by": uuid.uuid4().hex}
        if store.replace(POINTER, json.dumps(written, indent=2).encode(), version):
            return changed
    raise BfrError(f"{store}: other writers changed {POINTER} {_TRIES} times in a row; run the same command again")
