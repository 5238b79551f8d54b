"""What reviewers want to have restored again, and the settings of the run that does so.

It is a run of its own, over the same source, limited to the images with a face that is marked (`--select`): what is
done stays as it is, and the two can be compared, reviewed and exported like any others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from bfr_models.errors import UsageError
from bfr_models.methods.fidelity import DIALS
from tasks.runs.finished_run import current_run
from tasks.runs.layout import DECISIONS, REVIEW
from tasks.runs.manifest import data_by_shard, read_manifest
from tasks.runs.plan import require_finished
from tasks.runs.reviews import REDO, Redo, Reviews, read_reviews
from tasks.storage.redaction import redact
from tasks.storage.store import Store

SCHEMA = pa.schema([("id", pa.string()), ("redo_method", pa.string()), ("redo_fidelity", pa.float64())])

_KEPT = (
    "task", "input", "column", "gt_column", "mask_column", "seed", "format", "quality", "keep_input", "recogniser",
    "min_identity", "max_harm", "min_gain", "size", "resize_back", "grain", "detector", "detector_weights", "min_face",
    "max_faces", "upscale", "background", "lpips", "metrics", "protocol", "fid", "fid_reference", "keep_embeddings",
)  # fmt: skip
"""Settings that are those of the run that was reviewed, unless others are given."""


def reviewed_run(url: str) -> Store | None:
    """The run that an address like `<run>/review` is the review of; None for any other address."""
    run, _, folder = url.rstrip("/").rpartition("/")
    if folder != REVIEW or not run:
        return None
    store = Store(run)
    return store if store.list(DECISIONS) else None


def redo_rows(store: Store) -> pa.Table:
    """The rows with a face that is to be restored again, one for each way in which somebody wants that."""
    current = _reviews(store).current.values()
    wanted = {(one.id, one.redo) for one in current if one.verdict == REDO and one.redo}
    rows = [{"id": row_id, "redo_method": redo.method, "redo_fidelity": redo.fidelity} for row_id, redo in wanted]
    return pa.Table.from_pylist(sorted(rows, key=str), schema=SCHEMA)


def _reviews(store: Store) -> Reviews:
    return read_reviews(store, data_by_shard(read_manifest(store)))


def redo_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run that restores again what was marked in the run `given["source"]`, in the way that was
    chosen there. All else is as in that run, or as it is given.

    UsageError if nothing is marked, and if it is marked for several ways: a run has one method and one fidelity.
    """
    store = current_run(given["source"])
    record = require_finished(store)[1]
    choice = _choice(store, given)
    before: Mapping[str, Any] = record["arguments"]
    same = choice.method == before["method"]
    settings = {name: before[name] for name in _KEPT if before.get(name) is not None}
    settings |= {name: before[name] for name in ("preset", "effort") if same and before.get(name) is not None}
    if same:
        dial = None if choice.fidelity is None else DIALS.get((choice.method, record["method"]["preset"]))
        options = before.get("options", {}).items()
        settings["options"] = {name: value for name, value in options if dial is None or name not in dial.sets}
    own = f"{str(before['destination']).rstrip('/')}/"
    source = str(before["source"])
    source = store.url(source.removeprefix(own)) if source.startswith(own) else source  # the run may have moved
    settings |= {name: value for name, value in given.items() if name != "options" or value}
    fidelity = "IS NULL" if choice.fidelity is None else f"= {choice.fidelity!r}"
    chosen = {"method": choice.method} | ({} if choice.fidelity is None else {"fidelity": choice.fidelity})
    where = f"redo_method = '{choice.method.replace(chr(39), chr(39) * 2)}' AND redo_fidelity {fidelity}"
    return settings | chosen | {"source": source, "select": store.url(REVIEW), "select_where": where}


def _choice(store: Store, given: Mapping[str, Any]) -> Redo:
    """The one way in which rows are to be restored again, of those that fit what is given."""
    rows = redo_rows(store).to_pylist()
    ways = Counter(Redo(row["redo_method"], row["redo_fidelity"]) for row in rows)
    fitting = [
        way
        for way in ways
        if given.get("method") in (None, way.method) and given.get("fidelity") in (None, way.fidelity)
    ]
    exact = [way for way in fitting if (way.method, way.fidelity) == (given.get("method"), given.get("fidelity"))]
    if len(exact or fitting) == 1:
        return (exact or fitting)[0]
    url = redact(store.url())
    if not ways:
        outdated = len(_reviews(store).outdated)
        found = f"{outdated} decisions about what faces were before" if outdated else "none"
        raise UsageError(
            f"expected faces of {url} that are marked to be redone, found {found}; `bfr review {url}` marks"
        )
    commands = (f"\n  bfr restore {url} DST --redo {_flags(way)}  ({count} images)" for way, count in ways.items())
    raise UsageError(
        f"expected one method and fidelity for a run, found {len(ways)} among what is marked in {url}; give each a "
        f"run of its own:{''.join(commands)}"
    )


def _flags(way: Redo) -> str:
    return f"--method {way.method}" + ("" if way.fidelity is None else f" --fidelity {way.fidelity:g}")
