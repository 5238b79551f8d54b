"""What is kept beside each exported image as JSON: what became of its faces, their scores, and what made them."""

from __future__ import annotations

import hashlib
import importlib.metadata
from typing import Any

from tasks.datasets.plain_json import encode_json
from tasks.export.notes import Notes
from tasks.export.pictures import Picture
from tasks.export.rows import ExportRow, ExportRun
from tasks.export.xmp import Event
from tasks.runs.outcomes import CHANGED, outcome_word

_NOT_TOLD = {"source_file", "source_row"}  # of a rejected row: paths of whoever ran it


def event_of(run: ExportRun, picture: Picture) -> Event:
    """The entry of `xmpMM:History` for a picture."""
    method = run.record["method"]
    outcomes = [face["outcome"] for row in picture.rows for face in row.values.get("faces") or ()]
    parameters = {
        "method": method["name"],
        "preset": method["preset"],
        "fingerprint": method["fingerprint"],
        "run": run.settings,
        "faces": f"{sum(outcome_word(one) in CHANGED for one in outcomes)} of {len(outcomes)} changed",
    }
    return Event(
        agent=f"bfr-pipeline {importlib.metadata.version('bfr-pipeline')}",
        when=run.record["finished"],
        parameters="; ".join(f"{name}: {value}" for name, value in parameters.items()),
    )


def sidecar(run: ExportRun, picture: Picture, state: str, files: dict[str, bytes], notes: Notes) -> bytes:
    """The record of one picture. `files` are those that were written for it, by name."""
    method = run.record["method"]
    return encode_json(
        {
            "schema": 1,
            "name": picture.name,
            "state": state,  # changed, unchanged, rejected
            "files": [{"path": path, "sha256": hashlib.sha256(data).hexdigest()} for path, data in files.items()],
            "notes": list(notes),
            "run": {
                "settings": run.settings,
                "method": method["name"],
                "preset": method["preset"],
                "fingerprint": method["fingerprint"],
                "finished": run.record["finished"],
            },
            "rows": [_told(row) for row in picture.rows],
        },
        indent=2,
    )


def _told(row: ExportRow) -> dict[str, Any]:
    return {name: value for name, value in row.values.items() if name not in _NOT_TOLD}
