"""The faces of a run as one table, as a review sorts and filters them: made once from the columns without images.

It is kept in the run (`review/faces-<digest>.parquet`, sorted by doubt), so that the next review opens at once; whoever
finds none makes it again. The digest is of the manifest, so that a run that has changed gets a new one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bfr_models.metrics.identity_scale import IdentityScale, scale_of
from tasks.datasets.row_groups import values
from tasks.datasets.writer import encode_table
from tasks.export.rows import ExportRun
from tasks.report.identity_words import BOX_SHARE
from tasks.runs.finished_run import restored_rows
from tasks.runs.layout import DATA, MANIFEST, REJECTED, review_index
from tasks.runs.outcomes import CHANGED
from tasks.runs.sealed import run_parquet
from tasks.storage.store import PARALLEL_READS, Store

VERSION = 2  # of the table: another one is made again
YEAR_COLUMNS = ("year", "date", "taken", "created", "decade")
FIRST_FILES, FILES_AT_ONCE = 16, 256  # the first few are shown at once
_ROW_GROUP_ROWS = 65_536
_FACTS = b"bfr:facts"

SCHEMA = pa.schema(
    [
        ("face", pa.int64()),  # its number in the run
        ("file", pa.int32()),  # the shard's number in the manifest
        ("row", pa.int32()),  # in the data file
        ("source_row", pa.int64()),  # in the source file
        ("place", pa.int16()),  # among the faces of its row
        ("id", pa.string()),
        ("outcome", pa.string()),
        ("changed", pa.bool_()),
        ("identity", pa.float32()),
        ("gain", pa.float32()),
        ("spread", pa.float32()),
        ("harm", pa.float32()),
        ("sharpness", pa.float32()),
        ("side", pa.float32()),
        ("x0", pa.float32()),
        ("y0", pa.float32()),
        ("x1", pa.float32()),
        ("y1", pa.float32()),
        ("doubt", pa.float32()),
        ("year", pa.int16()),
        ("folder", pa.string()),
    ]
)
_SCORES = {
    "identity": "identity_similarity",
    "gain": "gain",
    "spread": "gain_spread",
    "harm": "harm",
    "sharpness": "sharpness",
}
_YEAR = re.compile(r"(?<!\d)(1[5-9]\d\d|20\d\d)(?!\d)")


def index_name(store: Store, year_column: str | None) -> str:
    """The name of the table that belongs to the run as it is now."""
    made_of = [str(VERSION).encode(), (year_column or "").encode(), store.read(MANIFEST)]
    return review_index(hashlib.sha256(b"\0".join(made_of)).hexdigest()[:16])


def make_index(run: ExportRun, year_column: str | None) -> Iterator[tuple[int, pa.Table]]:
    """The table, some files at a time, each part with the number of files read so far. Faces are numbered in the order
    of the run."""
    scale = scale_of((run.record.get("recogniser") or {}).get("name"))
    first, files = 0, len(run.shards)
    with ThreadPoolExecutor(PARALLEL_READS) as readers:
        for start, stop in pairwise([0, *range(FIRST_FILES, files, FILES_AT_ONCE), files]):
            parts = readers.map(lambda number: _of_file(run, number, scale, year_column), range(start, stop))
            table = pa.concat_tables([SCHEMA.empty_table(), *parts])
            numbers = pa.array(np.arange(first, first + table.num_rows), pa.int64())
            first += table.num_rows
            yield stop, table.set_column(0, "face", numbers)


def keep_index(store: Store, name: str, table: pa.Table, facts: dict[str, Any]) -> None:
    """Puts the table into the run, with what is to be known about it as a whole."""
    ordered = table.sort_by([("doubt", "descending"), ("face", "ascending")])
    ordered = ordered.replace_schema_metadata({_FACTS: json.dumps(facts)})
    store.write(name, encode_table(ordered, _ROW_GROUP_ROWS))


def facts_of(path: str) -> dict[str, Any]:
    """What `keep_index` was told about the table in a file on this machine."""
    found: dict[str, Any] = json.loads((pq.read_schema(path).metadata or {})[_FACTS])
    return found


def _of_file(run: ExportRun, number: int, scale: IdentityScale | None, year_column: str | None) -> pa.Table:
    """The faces of one data file, in the rows that count."""
    shard, entry = run.shards[number]
    if entry[DATA] is None:
        return SCHEMA.empty_table()
    with run_parquet(run.store, entry[DATA]) as parquet:
        wanted = (year_column,) if year_column else YEAR_COLUMNS
        years = next((name for name in wanted if name in parquet.schema_arrow.names), None)
        table = parquet.read(columns=["id", "faces", *([years] if years else [])])
    faces = table["faces"].combine_chunks()
    rows = pc.list_parent_indices(faces).to_numpy()
    flat = pc.list_flatten(faces)
    scores = {name: _floats(flat, field) for name, field in _SCORES.items()}
    words = [str(outcome).partition(":")[0] for outcome in _field(flat, "outcome").to_pylist()]
    boxes = _boxes(flat)
    side = _sides(flat, boxes)
    changed = np.isin(np.array(words, dtype=object), CHANGED) if words else np.zeros(0, np.bool_)
    ids = list(map(str, values(table["id"])))
    year = [_year_of(value) for value in values(table[years])] if years else [None] * table.num_rows
    folders = [_folder_of(row_id) for row_id in ids]
    columns: dict[str, Any] = {
        "face": np.zeros(len(rows), np.int64),
        "file": np.full(len(rows), number, np.int32),
        "row": rows.astype(np.int32),
        "source_row": restored_rows(run.store, shard.numbers, entry[REJECTED])[rows],
        "place": (np.arange(len(rows)) - np.searchsorted(rows, rows)).astype(np.int16),
        "id": [ids[row] for row in rows],
        "outcome": words,
        "changed": changed,
        **{name: pa.array(score, pa.float32(), from_pandas=True) for name, score in scores.items()},  # NaN is null
        "side": side,
        **dict(zip(("x0", "y0", "x1", "y1"), boxes.T, strict=True)),
        "doubt": _doubt(scores, side, changed, scale),
        "year": [year[row] for row in rows],
        "folder": [folders[row] for row in rows],
    }
    table = pa.table({field.name: pa.array(columns[field.name], field.type) for field in SCHEMA}, schema=SCHEMA)
    return table.filter(np.isin(columns["source_row"], run.superseded_in(number), invert=True))


def _doubt(
    scores: dict[str, NDArray[np.float32]],
    side: NDArray[np.float32],
    changed: NDArray[np.bool_],
    scale: IdentityScale | None,
) -> NDArray[np.float32]:
    """(n,) how much a changed face needs a look: the judge's risk and its uncertainty, and how far the identity is
    below that of two photos of one person (1 at the mark of strangers). A face that is too small to tell counts as
    halfway. Faces that were not changed come after all others, the likeliest to have gained first."""
    risk = np.nan_to_num(scores["harm"], nan=0.0) + np.nan_to_num(scores["spread"], nan=0.0)
    identity = scores["identity"]
    if scale is None:
        strange = 1 - identity
    else:
        strange = (scale.same_person - identity) / (scale.same_person - scale.strangers)
        strange = np.where(side < scale.smallest, 0.5, strange)
    # Above the mark it still orders faces of which nothing else is known, but by little.
    strange = np.where(strange < 0, strange / 100, np.minimum(strange, 3))
    doubt = risk + np.nan_to_num(strange, nan=0.5)
    kept = -10 + np.nan_to_num(scores["gain"], nan=-1.0)
    return np.where(changed, doubt, kept).astype(np.float32)


def _field(faces: pa.StructArray, name: str) -> pa.Array:
    """A field of all faces; nulls where a run is older than it."""
    known = faces.type.get_field_index(name) >= 0
    return pc.struct_field(faces, name) if known else pa.nulls(len(faces))


def _floats(faces: pa.StructArray, name: str) -> NDArray[np.float32]:
    return np.array(_field(faces, name).cast(pa.float32()).to_numpy(zero_copy_only=False), np.float32)


def _boxes(faces: pa.StructArray) -> NDArray[np.float32]:
    """(n, 4) left, top, right, bottom."""
    return np.array(pc.list_flatten(_field(faces, "box")).to_numpy(zero_copy_only=False), np.float32).reshape(-1, 4)


def _sides(faces: pa.StructArray, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n,) the side of each face's square, as `tasks.report.identity_words.face_side` has it."""
    known, width = _floats(faces, "side"), boxes[:, 2] - boxes[:, 0]
    is_whole = _field(faces, "landmarks").is_null().to_numpy(zero_copy_only=False).astype(np.bool_)
    return np.where(np.isnan(known), np.where(is_whole, width, width / BOX_SHARE), known).astype(np.float32)


def _year_of(value: object) -> int | None:
    """The first number in a value that can be a year: 1931, "1931-07-02", "ca. 1931", a date."""
    found = _YEAR.search(str(value)) if value is not None else None
    return int(found[0]) if found else None


def _folder_of(row_id: str) -> str:
    """The folder that an image lay in, by its id; "" if that tells none."""
    return row_id.partition("#")[0].rpartition("/")[0]


def whole(parts: Sequence[pa.Table]) -> pa.Table:
    """All parts of the table as one."""
    return pa.concat_tables([SCHEMA.empty_table(), *parts])
