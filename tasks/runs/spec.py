"""`plan/spec.json`: the settings that decide a run's output. Runs with different settings share no destination."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from bfr_models.errors import UsageError
from tasks.config.resolve import ResolvedRun
from tasks.runs.layout import COMMITS, DATA, RECORD, SPEC
from tasks.storage.store import Store

Settings = dict[str, Any]

_SHOWN = 120  # characters of a setting's value in a message


def settings_digest(settings: Settings) -> str:
    """8 hex digits; equal for settings that may share a destination."""
    given = {key: value for key, value in _flat(settings).items() if value is not None and key != "fingerprint"}
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()[:8]


def check_destination(resolved: ResolvedRun, store: Store) -> None:
    """UsageError, before any work, if the run must not write to its destination."""
    run = resolved.run
    if f"{run.destination}/".startswith(f"{run.source.rstrip('/')}/"):
        raise UsageError(f"expected a destination outside {run.source}, found {run.destination}; use another")
    if store.exists(SPEC):
        _refuse_mixture(read_spec(store), resolved)
    elif store.exists(RECORD) or any(store.exists(folder) for folder in (DATA, COMMITS)):
        raise UsageError(f"expected a new or an unfinished run at {run.destination}, found other files; use another")


def freeze_spec(resolved: ResolvedRun, store: Store) -> None:
    """Stores the settings with the run. UsageError if another driver has just begun one with other settings there."""
    store.create(SPEC, json.dumps(resolved.settings, indent=2).encode())
    _refuse_mixture(read_spec(store), resolved)


def read_spec(store: Store) -> Settings:
    """The settings of an existing run."""
    settings: Settings = json.loads(store.read(SPEC))
    return settings


def _refuse_mixture(found: Settings, resolved: ResolvedRun) -> None:
    there, here = _flat(found), _flat(resolved.settings)
    differing = [key for key in sorted(there | here) if there.get(key) != here.get(key) and key != "fingerprint"]
    if differing:
        changes = (f"{key}: expected {_short(there.get(key))}, found {_short(here.get(key))}" for key in differing)
        raise UsageError(
            f"{resolved.run.destination} holds a run with other settings ({'; '.join(changes)}); use another "
            "destination, or the same settings"
        )


def _flat(settings: Settings, prefix: str = "") -> Settings:
    """{"method": {"options": {"steps": 2}}} -> {"method.options.steps": 2}"""
    flat: Settings = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {prefix + key: value}
    return flat


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
