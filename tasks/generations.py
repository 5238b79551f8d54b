"""Generations of a dataset that is restored again and again: which exist, and which one is current.

    generations/<name>/   a run each, laid out like any other: `bfr verify`, `curate`, ... take its address
    current.json          the pointer: the current generation, all that were ever begun, and what became of them
    comparisons/          <old>..<new>.{json,html}: the comparison that decided each switch

A generation belongs to its settings: other weights, options or thresholds make a new one beside the old. Each decision
about generations is a single conditional write of `current.json`: if two writers race, the second sees what the first
has done and decides again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bfr_models.errors import BfrError, UsageError, unknown
from tasks.config.resolve import ResolvedRun
from tasks.runs.layout import RECORD, SPEC, comparison_file, generation_folder
from tasks.runs.plan import finished_record, latest_plan
from tasks.runs.pointer import Comparison, Pointer, kind_of, read_pointer, update_pointer
from tasks.runs.sealed import read_json
from tasks.runs.spec import settings_digest
from tasks.storage.redaction import redact
from tasks.storage.store import Store


def choose_generation(resolved: ResolvedRun) -> str:
    """The name of the newest generation with these settings; begins one if there is none.

    UsageError if the destination is something else, or belongs to another source.
    """
    store, settings = Store(resolved.run.destination), resolved.settings
    if store.exists(SPEC):
        raise UsageError(f"expected generations at {store}, found a run of `bfr restore`; use another destination")

    kind = f"{resolved.run.method}-{settings_digest(settings)}"

    def begin(pointer: Pointer) -> Pointer:
        if pointer.source not in (None, settings["source"]):
            raise UsageError(
                f"expected the source {pointer.source} of the generations at {store}, found {settings['source']}; "
                "use another destination"
            )
        if kind in map(kind_of, pointer.live):
            return pointer
        name = f"{len(pointer.begun) + 1:04d}-{kind}"
        return replace(pointer, source=settings["source"], begun=(*pointer.begun, name))

    return next(name for name in reversed(update_pointer(store, begin).live) if kind_of(name) == kind)


def current_generation(resolved: ResolvedRun) -> str | None:
    """The name of the current generation, if it is the newest one with these settings; None otherwise."""
    pointer, settings = read_pointer(Store(resolved.run.destination)), resolved.settings
    kind = f"{resolved.run.method}-{settings_digest(settings)}"
    newest = next((name for name in reversed(pointer.live) if kind_of(name) == kind), None)
    return newest if newest == pointer.generation and pointer.source == settings["source"] else None


def switch_generation(destination: str, name: str, *, force: bool = False, instead_of: str | None = None) -> Pointer:
    """Makes a finished generation the current one. UsageError if it is not finished and, unless forced, if it was
    rolled back, or was not compared with the current one, or did worse. BfrError if `instead_of` is not current."""
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
            raise UsageError(f"{name} was held back: {'; '.join(why)}; use --force to make it current anyway")
        if not force and pointer.generation is not None and not store.exists(comparison_file(pointer.generation, name)):
            raise UsageError(
                f"expected a comparison of {name} with {pointer.generation}, found none; run `bfr reprocess` with its "
                "settings to make one, or use --force to do without"
            )
        was = () if pointer.generation is None else (pointer.generation,)
        before = tuple(old for old in (*pointer.previous, *was) if old != name)
        rolled_back = tuple(old for old in pointer.rolled_back if kind_of(old) != kind_of(name))
        return replace(pointer, generation=name, previous=before, rolled_back=rolled_back)

    return update_pointer(store, switch)


def make_current(destination: str, name: str, comparison: Comparison | None) -> dict[str, Any]:
    """Makes a finished generation the current one, unless it was rolled back or its comparison with the current one
    speaks against it.

    Returns {generation, current, switched, held_back: reasons, comparison: address of its page or None, compared:
    whether the comparison is new}. BfrError if the current generation has changed since the comparison.
    """
    store = Store(destination)
    pointer = read_pointer(store)
    old = comparison.old if comparison else pointer.generation
    held_back = [] if old == name else reasons_against(store, pointer, name)
    if not held_back:
        switch_generation(destination, name, instead_of=old)
    return {
        "generation": name,
        "current": old if held_back else name,
        "switched": not held_back and old != name,
        "held_back": held_back,
        "comparison": comparison.report if comparison else None,
        "compared": comparison is not None and comparison.is_new,
    }


def reasons_against(store: Store, pointer: Pointer, name: str) -> list[str]:
    """Why a generation does not become current by itself; empty if it may."""
    if pointer.is_rolled_back(name):
        return ["it was rolled back"]
    if pointer.generation is None or not store.exists(comparison_file(pointer.generation, name)):
        return []
    found: list[str] = read_json(store, comparison_file(pointer.generation, name))["reasons"]
    return found


def rollback_generation(destination: str) -> Pointer:
    """Makes the previous generation current again. UsageError if there is none, or if it is not finished."""
    store = Store(destination)

    def back(pointer: Pointer) -> Pointer:
        there = [name for name in pointer.previous if name in pointer.live]
        if pointer.generation is None or not there:
            raise UsageError(f"expected an earlier generation than {pointer.generation} at {store}, found none")
        _require_finished(store, there[-1])
        rolled_back = (*pointer.rolled_back, pointer.generation)
        return replace(pointer, generation=there[-1], previous=tuple(there[:-1]), rolled_back=rolled_back)

    return update_pointer(store, back)


def expire_generations(destination: str, keep: int, at_work: str | None = None) -> list[str]:
    """Removes finished generations, in the order of `Pointer.expirable`, until `keep` are left, including the current
    one. Never removes one in progress. Returns the names of those removed."""
    if keep < 1:
        raise UsageError(f"expected to keep at least 1 generation, found {keep}")
    store = Store(destination)
    finished = {name for name in read_pointer(store).live if _record(store, name) is not None}

    def expire(pointer: Pointer) -> Pointer:
        others = [name for name in pointer.expirable(at_work) if name in finished]
        return replace(pointer, expired=(*pointer.expired, *others[: max(0, len(others) + 1 - keep)]))

    before = set(read_pointer(store).expired)
    pointer = update_pointer(store, expire)
    for name in pointer.expired:  # including those of an earlier call that was killed
        folder = generation_folder(name)
        files = store.list(folder)
        for path in sorted(
            files, key=lambda path: not path.endswith(f"/{RECORD}")
        ):  # run.json first: no remains look finished
            store.delete(path)
    return [name for name in pointer.expired if name not in before]


def list_generations(destination: str) -> list[dict[str, Any]]:
    """The name, state (current, finished, unfinished), reasons for holding it back, and totals of each generation."""
    store = Store(destination)
    pointer = read_pointer(store)
    if not pointer.begun:
        raise UsageError(f"expected generations at {store}, found none; run `bfr reprocess` to make the first")
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
        "address": redact(store.url(generation_folder(name))),
    }


def _require_finished(store: Store, name: str) -> None:
    if _record(store, name) is None:
        raise UsageError(f"expected a finished generation, found {name} unfinished; run `bfr reprocess` to continue it")


def _record(store: Store, name: str) -> dict[str, Any] | None:
    """run.json of a generation; None if it is not finished, or has more to do again."""
    run = store.sub(generation_folder(name))
    if not run.exists(RECORD):
        return None
    return finished_record(run, latest_plan(run))
