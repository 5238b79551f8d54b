"""Whose a dataset is: each file says which command made it, and no other command replaces it unasked.

The mark is a digest, because a dataset travels further than the paths and addresses it was made from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from bfr_models.errors import UsageError
from tasks.storage.redaction import redact
from tasks.storage.store import Store

FIRST = "part-00000.parquet"
KEY = b"bfr_made_by"


def made_by(command: str, source: str, settings: Mapping[str, object]) -> str:
    """The mark of a command with this source and these settings."""
    made = [command, redact(Store(source).url()), settings]
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()


def marked(schema: pa.Schema, mark: str | None) -> pa.Schema:
    """The schema of files that bear the mark; None removes another's."""
    metadata = {key: value for key, value in (schema.metadata or {}).items() if key != KEY}
    return schema.with_metadata(metadata | ({KEY: mark.encode()} if mark else {}))


def require_free(store: Store, mark: str, *, overwrite: bool) -> None:
    """UsageError unless the folder is empty, or has a dataset that the same command made or that may be replaced."""
    store.require_writable()
    found = store.list()
    others = [path for path in found if not path.startswith("part-")]
    if others:
        raise UsageError(
            f"expected an empty folder or an earlier dataset at {redact(store.url())}, found {others[0]} and "
            f"{len(others) - 1} other files; choose another destination"
        )
    if found and not overwrite and not _is_marked(store, mark):
        raise UsageError(
            f"expected an empty folder or what this same command has made at {redact(store.url())}, found another "
            f"dataset of {len(found)} files; choose another destination, or replace it with --overwrite"
        )


def require_outside(source: str, destination: str) -> None:
    """UsageError if the destination is the source or a folder in it: what is written there would be read as well."""
    inside, outside = Store(destination).url(), Store(source).url().rstrip("/")
    if f"{inside}/".startswith(f"{outside}/"):
        raise UsageError(f"expected a destination outside {redact(source)}, found {redact(destination)}; use another")


def require_apart(source: str, destination: str) -> None:
    """The same, and if the source is in the destination: with --overwrite what is made of it would take its place."""
    require_outside(source, destination)
    inside, outside = Store(source).url(), Store(destination).url().rstrip("/")
    if inside.startswith(f"{outside}/"):
        raise UsageError(f"expected a source outside {redact(destination)}, found {redact(source)}; use another DST")


def _is_marked(store: Store, mark: str) -> bool:
    try:
        with store.open_input(FIRST) as opened:
            return (pq.read_schema(opened).metadata or {}).get(KEY) == mark.encode()
    except (FileNotFoundError, pa.ArrowInvalid):
        return False
