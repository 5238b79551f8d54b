"""From what was asked for to a run with everything decided: its input, its networks, its rows. Once per run."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from bfr_models.errors import UsageError
from tasks.config.resolve import ResolvedRun, resolve_run
from tasks.config.restore import RestoreRun
from tasks.runs.first_rows import look
from tasks.runs.layout import generation_folder, has_own_source
from tasks.runs.plan import find_plan
from tasks.runs.pointer import read_pointer
from tasks.runs.sealed import DamagedError
from tasks.runs.selected_rows import selected_rows
from tasks.runs.spec import Settings, as_begun, read_spec
from tasks.storage.redaction import redact
from tasks.storage.store import Store

Run = TypeVar("Run", bound=RestoreRun)

FACES_ALONE = "bfr evaluate"
"""The command that takes no photos."""


def prepare_run(run: RestoreRun, verb: str = "bfr restore") -> ResolvedRun:
    """The run of a command with its input decided and every name resolved. UsageError, before anything is written, for
    what cannot be done."""
    return resolve_decided(as_begun(run), verb)


def resolve_decided(run: RestoreRun, verb: str = "bfr restore") -> ResolvedRun:
    """The same for a run whose settings are those that it was begun with."""
    return with_rows(resolve_run(decide_input(run, verb)[0]))


def with_rows(resolved: ResolvedRun) -> ResolvedRun:
    """The run, limited to the rows that were selected for it, and with the address that they came from when it began:
    that of a run's own source is another one in a copy of the run."""
    run, selected = resolved.run, selected_rows(resolved.run)
    if selected is not None:
        resolved = replace(resolved, selection=selected.description)
    if not has_own_source({"source": run.source, "destination": run.destination}):
        return resolved
    here = redact(run.source.rstrip("/"))
    return replace(resolved, begun_at=_settings(Store(run.destination)).get("source", here))


def decide_input(run: Run, verb: str = "bfr restore") -> tuple[Run, str]:
    """The run with `input` faces or photos, and in words what the source was taken for, if that was decided here.

    A run that has begun stays with what it began with, and so do the generations of a dataset. UsageError for input
    faces if the first rows are plainly photos, with the command of `verb` to use instead.
    """
    if run.task == "inpaint" or run.gt_column is not None or run.input == "photos":
        return _with_input(run, "photos" if run.input == "photos" else "faces"), ""
    begun = _begun_with(Store(run.destination))
    if begun is not None:
        return _with_input(run, begun if run.input == "auto" else run.input), ""
    found = look(run.source, run.column)
    if run.input == "auto":
        kind = {"faces": "aligned faces", "photos": "photos"}[found.kind]
        other = "photos" if found.kind == "faces" else "faces"
        said = f"{redact(run.source)} is taken for {kind}: {found}; if that is wrong: --input {other}"
        return _with_input(run, found.kind), said
    if found.is_plainly_photos:
        asked = "" if verb == FACES_ALONE else " for --input faces"
        raise UsageError(
            f"expected aligned faces at {redact(run.source)}{asked}, found photos: {found}; {_advice(run, verb)}"
        )
    return run, ""


def _advice(run: RestoreRun, verb: str) -> str:
    if verb == FACES_ALONE:
        return f"{verb} compares methods on aligned faces alone: cut them out of the photos first"
    preset = f" --preset {run.preset}" if run.preset else ""
    return f"use\n  {verb} {redact(run.source)} {redact(run.destination)} --method {run.method}{preset} --input photos"


def _with_input(run: Run, kind: str) -> Run:
    return run if run.input == kind else run.model_copy(update={"input": kind})


def _begun_with(store: Store) -> str | None:
    """The input of the run, or of the latest generation, at a destination; None if there is none yet."""
    if settings := _settings(store):
        return settings.get("input")
    for name in reversed(read_pointer(store).live):
        with suppress(FileNotFoundError, DamagedError):
            return read_spec(store.sub(generation_folder(name))).get("input")
    return None


def _settings(store: Store) -> Settings:
    """What the run at a destination was begun with; nothing if there is none yet."""
    with suppress(FileNotFoundError, DamagedError):
        return read_spec(store)
    with suppress(DamagedError):
        if (plan := find_plan(store)) is not None:  # its spec.json is gone
            return plan.made_by.get("settings", {})
    return {}
