"""What an assessment is asked to do, and what is left of it. Imports no torch: what can be refused is refused here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from bfr_models.errors import UsageError
from bfr_models.judge.decision import choose_judge
from bfr_models.types import NetworkChoice
from tasks.assessment.table import FOLDER, RECORD, UNFINISHED
from tasks.assessment.units import Unit, pieces, units
from tasks.config.assess import AssessRun
from tasks.config.resolve import ResolvedRun, resolve_run
from tasks.runs.layout import SOURCE
from tasks.runs.listing import list_source
from tasks.runs.prepare import decide_input
from tasks.runs.spec import flat
from tasks.storage.redaction import redact
from tasks.storage.store import Store

PLACE = "arguments.destination"
"""The one setting that does not decide the rows: an assessment may have been moved, or be named in another way."""


@dataclass(frozen=True)
class Begun:
    """An assessment with everything decided."""

    store: Store  # its destination
    resolved: ResolvedRun  # the run that it assesses for
    took_it_for: str  # in words, what the source was taken for, if that was decided here
    judge: NetworkChoice | None
    request: dict[str, Any]  # what decides the rows
    rows_in_source: int
    planned: list[Unit]
    todo: list[Unit]
    outdated: frozenset[str]  # files of the assessment that are of source files as they were before
    finished: dict[str, Any] | None  # assess.json of this very assessment, if it was finished once

    @property
    def is_done(self) -> bool:
        return self.finished is not None and not self.todo and not self.outdated


def begin(asked: AssessRun) -> Begun:
    """Decides everything; writes nothing. UsageError for what cannot be done."""
    store = Store(asked.destination)
    store.require_writable()
    resolved, said = _resolved(asked, store)
    choice = choose_judge(resolved.method)
    request = _request(asked, resolved, None if choice is None else choice.sha256)
    shards, _ = list_source(resolved.run)
    planned = list(units(pieces(shards, asked.limit, asked.sample, asked.seed)))
    finished = _require_own(store, request)
    there, wanted = set(store.list(FOLDER)), {unit.path for unit in planned}
    return Begun(
        store,
        resolved,
        said,
        choice,
        request,
        sum(shard.rows for shard in shards),
        planned,
        [unit for unit in planned if unit.path not in there],
        frozenset(there - wanted),
        finished,
    )


def _resolved(asked: AssessRun, store: Store) -> tuple[ResolvedRun, str]:
    """The run that is assessed for. What an assessment has begun with, it goes on with."""
    restoration, said = asked.restoration, ""
    begun = _found(store)
    if asked.input == "auto" and begun is not None:
        restoration = restoration.model_copy(update={"input": begun["input"]})
        said = begun.get("took_it_for") or ""
    else:
        restoration, said = decide_input(restoration, "bfr assess")
    return resolve_run(restoration), said


def _request(asked: AssessRun, resolved: ResolvedRun, judge: str | None) -> dict[str, Any]:
    """What decides the rows."""
    return {
        "arguments": {name: value for name, value in asked.arguments.items() if name not in ("threads", "input")},
        "input": resolved.run.input,
        "method": {"name": resolved.method.name, "preset": resolved.method.preset.name},
        "fingerprint": resolved.method.fingerprint,
        "detector": None if resolved.photos is None else resolved.photos.description["detector"],
        "judge_sha256": judge,
    }


def _found(store: Store) -> dict[str, Any] | None:
    for name in (RECORD, UNFINISHED):
        if store.exists(name):
            found: dict[str, Any] = json.loads(store.read(name))
            return found
    return None


def require_assessment(store: Store) -> dict[str, Any] | None:
    """The record or request of the assessment there, whatever its settings; None if there is nothing yet but its
    images. UsageError if the destination holds something else."""
    found = _found(store)
    if found is None and (others := [path for path in store.list() if not path.startswith(f"{SOURCE}/")]):
        raise UsageError(
            f"expected an empty folder at {redact(store.url())}, found {others[0]} and {len(others) - 1} other files; "
            "use another destination"
        )
    return found


def _require_own(store: Store, request: dict[str, Any]) -> dict[str, Any] | None:
    """The record of this very assessment, if it is finished. UsageError if the destination holds something else."""
    found = require_assessment(store)
    if found is None:
        return None
    there, here = flat({key: found.get(key) for key in request}), flat(request)
    differing = [key for key in there | here if there.get(key) != here.get(key) and key != PLACE]
    if differing:
        told = "; ".join(f"{key}: expected {there.get(key)}, found {here.get(key)}" for key in differing)[:600]
        raise UsageError(
            f"{redact(store.url())} holds an assessment with other settings ({told}); use another destination"
        )
    return None if store.exists(UNFINISHED) else found
