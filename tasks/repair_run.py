"""Finds what is damaged in a run, and makes it ready to be mended by the recipe that restores.

What is derived (manifest, report, run.json) is made again when the run is closed; settings are taken from the plan, the
plan from the source and the commits; shards whose commit does not hold are planned again. All else stays as it is, and
what was damaged is kept in `damaged/`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from bfr_models.errors import BfrError
from tasks.config.code import require_accepted_code
from tasks.config.resolve import ResolvedRun
from tasks.config.restore import RestoreRun
from tasks.runs.damage import NOT_DAMAGE, Damage
from tasks.runs.finished_run import current_run
from tasks.runs.inspection import Findings, inspect_run
from tasks.runs.layout import MANIFEST, PACKED, RECORD, REPORT, SOURCE, SPEC, STORAGE_FACTS
from tasks.runs.mending import keep_copy, retire
from tasks.runs.prepare import resolve_decided
from tasks.runs.single_writer import exclusive_driver
from tasks.runs.spec import Settings, as_settled, settings_digest, write_spec
from tasks.storage.redaction import redact
from tasks.storage.store import Store

_RECOGNISERS = ("auto", "arcface", "adaface", "dlib", "none")


@dataclass(frozen=True)
class Repair:
    """What was found, and how the run goes on."""

    found: list[Damage]  # all that is wrong
    mended: list[str]  # what was made again, or is planned again
    resolved: ResolvedRun | None  # the run to start; None if what it was started with is not known any more
    todo: bool  # shards are to be restored, or the plan is to be made
    close: bool  # all shards are done, and the run is to be closed again
    why: str = ""  # why it cannot go on by itself


def repair_run(destination: str, *, accept_code_change: bool = False) -> Repair:
    """Reads the whole run, or the current one of generations, and mends its records and its plan. UsageError, before
    anything is changed, if there is no run, and if it has to be restored by other code than it was begun with."""
    store = current_run(destination)
    found = inspect_run(store)
    damage = [one for one in found.problems if one.kind not in NOT_DAMAGE]
    if not damage and not _has_lost_commits(found):
        return Repair(found.problems, [], None, todo=False, close=False)
    resolved, why = _started_with(store, found, accept_code_change)
    plan, broken = found.plan, {one.commit for one in damage if one.commit}
    if resolved is not None and plan is not None and (broken or plan.todo_count) and plan.done - broken:
        require_accepted_code(plan.made_by.get("code", {}), accepted=accept_code_change)
    mended = list(_mend_records(store, damage, found.settings or (resolved.settings if resolved else None)))
    if plan is None or any(one.kind.startswith("plan_") for one in damage):
        if resolved is not None:  # the recipe makes the plan again, and then looks at the shards of that one
            resolved = replace(resolved, run=resolved.run.model_copy(update={"deep": True}))
        return Repair(found.problems, mended, resolved, todo=True, close=False, why=why)
    if broken:
        with exclusive_driver(store):
            plan = retire(store, plan, broken, plan.made_by)
        mended.append(f"shards that are planned again: {len(broken)} (plan {plan.number})")
    todo = plan.todo_count > 0
    return Repair(found.problems, mended, resolved, todo, close=not todo, why=why)


def _has_lost_commits(found: Findings) -> bool:
    """Whether a closed run is no longer whole."""
    plan, record = found.plan, found.record
    return plan is not None and record is not None and record.get("plan") == plan.number and plan.todo_count > 0


def _mend_records(store: Store, damage: list[Damage], settings: Settings | None) -> Iterator[str]:
    """Takes damaged records away, each with a copy, and writes what is known. What was done."""
    kinds = {one.kind for one in damage}
    if "storage_damaged" in kinds:
        yield _take_away(store, STORAGE_FACTS)
    for one in damage:
        if one.kind == "review_damaged":  # what it said cannot be had again
            yield _take_away(store, one.where)
    is_short = any(one.commit for one in damage)  # then the totals are those of more rows than can be counted now
    if "record_damaged" in kinds or ("totals_differ" in kinds and not is_short):
        yield _take_away(store, RECORD)
    if "manifest_differs" in kinds:
        yield _take_away(store, MANIFEST)
    if kinds & {"spec_missing", "spec_damaged", "spec_changed"}:
        yield _take_away(store, SPEC)  # without it, the commits say which settings belong here
        if settings is not None:
            write_spec(store, settings)
            yield f"{SPEC} is made again"
    yield from (f"{path} is made again" for path in (MANIFEST, REPORT) if any(one.where == path for one in damage))


def _take_away(store: Store, path: str) -> str:
    copy = keep_copy(store, path)
    store.delete(path)
    return f"{path} is kept as {copy}" if copy else f"{path} was not there"


def _started_with(store: Store, found: Findings, accept_code_change: bool) -> tuple[ResolvedRun | None, str]:
    """The run as it was started, and as it comes to the same settings today; or None, and why not."""
    why = f"expected what {redact(store.url())} was started with in its plan or run.json, found neither"
    for arguments in _arguments(found):
        asked = {"destination": store.url(), "retry_rejected": (), "deep": False}
        asked |= {"source": store.url(SOURCE)} if store.list(f"{SOURCE}/{PACKED}") else {}  # the run may be a copy
        try:
            run = RestoreRun.model_validate({**arguments, **asked, "accept_code_change": accept_code_change})
            resolved = resolve_decided(as_settled(run, found.settings or arguments))
        except (ValidationError, BfrError) as error:
            why = str(error).partition("\n")[0]
            continue
        if found.settings is None or settings_digest(resolved.settings) == settings_digest(found.settings):
            return resolved, ""
        why = "expected the weights and settings that the run was started with, found others here"
    return None, why


def _arguments(found: Findings) -> Iterator[dict[str, Any]]:
    """What the run may have been started with: as the plan says, as run.json says, or as its settings come to."""
    if found.plan is not None and (arguments := found.plan.made_by.get("arguments")):
        yield arguments
    if found.record is not None and isinstance(arguments := found.record.get("arguments"), dict):
        yield arguments
    if found.settings is not None:
        yield from _guesses(found.settings)


def _guesses(settings: Settings) -> Iterator[dict[str, Any]]:
    """Arguments that may come to these settings. What decides no row (actors, engine) is as by default."""
    plain = {name: settings[name] for name in RestoreRun.model_fields if settings.get(name) is not None}
    method, measures = settings["method"], settings["measures"]
    plain |= {"method": method["method"], "preset": method["preset"]["name"], "options": method["options"]}
    plain |= {"metrics": measures["extra"], "keep_embeddings": measures["keep_embeddings"]}
    plain |= {} if measures["inception"] else {"fid": "none"}
    plain |= {} if measures["lpips"] else {"lpips": "none"}
    if photos := settings["photos"]:
        plain |= {name: photos[name] for name in ("min_face", "max_faces", "reject_no_face")}
        plain["detector"] = photos["detector"]["name"]
    for recogniser in _RECOGNISERS:
        yield {**plain, "recogniser": recogniser}
