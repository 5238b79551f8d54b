"""`run.json`: what ran, and the result. It is written last: a run that has it was finished."""

from __future__ import annotations

import json
from typing import Any

from tasks.runs.layout import RECORD
from tasks.runs.sealed import read_json
from tasks.storage.store import Store

RunRecord = dict[str, Any]


def read_record(store: Store) -> RunRecord | None:
    """The record of the run as it was last finished; None if it never was. DamagedError if it is not what was
    written."""
    try:
        return read_json(store, RECORD)
    except FileNotFoundError:
        return None


def write_record(store: Store, record: RunRecord) -> None:
    """Closes the run: everything else has been written."""
    store.write(RECORD, json.dumps(record, indent=2).encode())
