"""`plan/spec.json`: the settings that decide a run's output. Runs with different settings share no destination."""

from __future__ import annotations

import hashlib
import json
import logging
from contextlib import suppress
from itertools import islice
from typing import Any

from bfr_models.errors import UsageError
from tasks.config.resolve import ResolvedRun
from tasks.config.restore import RestoreRun
from tasks.datasets.overwriting import require_outside
from tasks.runs.commits import committed, read_commit
from tasks.runs.layout import CARD, COMMITS, DATA, POINTER, RECORD, REPORT, SPEC
from tasks.runs.sealed import DamagedError, read_json
from tasks.storage.redaction import redact
from tasks.storage.store import Store

_log = logging.getLogger(__name__)

Settings = dict[str, Any]

_BEFORE: Settings = {"max_harm": 1, "size": "network", "grain": "clean"}
"""What runs did before they had these settings: their spec.json has none of them."""
_WRITTEN = (RECORD, DATA, COMMITS, REPORT, CARD, POINTER)
"""What a run would write over or be mixed with, if it is there first: of an assessment, a comparison, generations."""
_ASKED = 16  # commits
_TOLD_FIRST = ("source", "method.method", "method.preset.name")
_TOLD = 8  # differing settings in a message
_SHOWN = 120  # characters of a setting's value in a message


def settings_digest(settings: Settings) -> str:
    """8 hex digits; equal for settings that may share a destination."""
    told = flat(settings).items()
    given = {key: value for key, value in told if value not in (None, _BEFORE.get(key)) and key != "fingerprint"}
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()[:8]


def as_begun(run: RestoreRun) -> RestoreRun:
    """The run as its destination goes on: one that was begun before faces were judged stays as it is, in whatever the
    caller leaves open."""
    store = Store(run.destination)
    if not store.exists(SPEC):
        return run
    return as_settled(run, read_spec(store))


def as_settled(run: RestoreRun, settings: Settings) -> RestoreRun:
    """The same for the settings of that run."""
    if "max_harm" in settings:
        return run
    open_ = {name: value for name, value in _BEFORE.items() if getattr(run, name) is None}
    if "max_harm" in open_ and run.task == "restore":
        _log.warning("%s was begun before faces were judged: it replaces every face", redact(run.destination))
    return run.model_copy(update=open_)


def check_destination(resolved: ResolvedRun, store: Store) -> None:
    """UsageError, before any work, if the run must not write to its destination."""
    run = resolved.run
    require_outside(run.source, run.destination)
    store.require_writable()
    if store.exists(SPEC):
        _refuse_mixture(read_spec(store), resolved)
    elif (others := [path for path in _WRITTEN if store.exists(path)]) and (
        settings_of_commits(store) != {settings_digest(resolved.settings)}
    ):
        raise UsageError(
            f"expected a new or an unfinished run at {run.destination}, found {others[0]} and no {SPEC}; use another "
            f"destination, or, if that was this run, `bfr repair {redact(run.destination)}`"
        )


def is_empty(store: Store) -> bool:
    """Whether there is nothing of a run, or in its way, at a destination."""
    return not any(store.exists(path) for path in (SPEC, *_WRITTEN))


def freeze_spec(resolved: ResolvedRun, store: Store) -> None:
    """Stores the settings with the run. UsageError if another driver has just begun one with other settings there."""
    write_spec(store, resolved.settings)
    _refuse_mixture(read_spec(store), resolved)


def write_spec(store: Store, settings: Settings) -> None:
    """Stores settings with a run, unless it has some."""
    store.create(SPEC, json.dumps(settings, indent=2).encode())


def read_spec(store: Store) -> Settings:
    """The settings of an existing run."""
    return read_json(store, SPEC)


def settings_of_commits(store: Store) -> set[str | None]:
    """The digests of the settings that a run's commits were made with, by a few of them: what to believe if spec.json
    and plan disagree, or are gone. Commits of older versions do not say."""
    names, said = islice(sorted(committed(store)), _ASKED), set[str | None]()
    for name in names:
        with suppress(DamagedError, FileNotFoundError):
            said.add(read_commit(store, name).get("settings"))
    return said


def _refuse_mixture(found: Settings, resolved: ResolvedRun) -> None:
    there, here = _BEFORE | flat(found), _BEFORE | flat(resolved.settings)
    differing = [key for key in there | here if there.get(key) != here.get(key) and key != "fingerprint"]
    if not differing:
        return
    told = sorted(differing, key=lambda key: (key not in _TOLD_FIRST, key.count("."), key))[:_TOLD]
    changes = [f"{key}: expected {_short(there.get(key))}, found {_short(here.get(key))}" for key in told]
    changes += [f"and {len(differing) - _TOLD} more"] if len(differing) > _TOLD else []
    raise UsageError(
        f"{redact(resolved.run.destination)} holds a run with other settings ({'; '.join(changes)}: see {SPEC}); "
        "use another destination, or the same settings"
    )


def flat(settings: Settings, prefix: str = "") -> Settings:
    """{"method": {"options": {"steps": 2}}} -> {"method.options.steps": 2}"""
    found: Settings = {}
    for key, value in settings.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {prefix + key: value}
    return found


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
