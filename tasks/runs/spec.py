"""What decides a run's output, as `plan/spec.json` holds it: other settings do not share a destination."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from bfr_models.errors import UsageError
from tasks.config.resolve import settings_of
from tasks.config.restore import RestoreRun
from tasks.storage.store import Store


def settings_digest(settings: dict[str, Any]) -> str:
    """8 hex digits, the same for settings that may share a destination."""
    given = {key: value for key, value in _flat(settings).items() if value is not None and key != "fingerprint"}
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()[:8]


def check_settings(run: RestoreRun) -> dict[str, Any]:
    """`settings_of` the run. UsageError before any work if it cannot be done, or not into this place."""
    settings = settings_of(run)
    if f"{run.destination}/".startswith(f"{run.source.rstrip('/')}/"):
        raise UsageError(f"expected a destination outside {run.source}, found {run.destination}; use another")
    store = Store(run.destination)
    if store.exists("plan/spec.json"):
        refuse_mixture(json.loads(store.read("plan/spec.json")), settings, run.destination)
    elif store.exists("run.json") or any(store.exists(folder) for folder in ("data", "commits")):
        raise UsageError(f"expected a new or an unfinished run at {run.destination}, found other files; use another")
    return settings


def refuse_mixture(found: dict[str, Any], wanted: dict[str, Any], destination: str) -> None:
    there, here = _flat(found), _flat(wanted)
    differing = [key for key in sorted(there | here) if there.get(key) != here.get(key) and key != "fingerprint"]
    if differing:
        changes = (f"{key}: expected {_short(there.get(key))}, found {_short(here.get(key))}" for key in differing)
        raise UsageError(
            f"{destination} holds a run with other settings ({'; '.join(changes)}); use another destination, or the "
            "same settings"
        )


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"method": {"options": {"steps": 2}}} -> {"method.options.steps": 2}"""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {prefix + key: value}
    return flat


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else text[:117] + "..."
