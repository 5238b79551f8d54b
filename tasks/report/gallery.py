"""The images of a run's report: the first rows beside their inputs and ground truth, and some of the rejects."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bfr_models.errors import BfrError
from tasks.config.restore import RestoreRun
from tasks.datasets.image_column import embedded_bytes
from tasks.datasets.row_groups import read_row_groups, values
from tasks.datasets.row_ids import row_ids
from tasks.report.identity_words import row_word
from tasks.report.page import Cell, GalleryRow, Reject
from tasks.runs.plan import Plan
from tasks.runs.shards import Shard, from_table, require_unchanged
from tasks.storage.store import Store

GALLERY_ROWS = 24
EXAMPLE_REJECTS = 50
MAX_GROUP_BYTES = 256 * 2**20  # a larger row group is not read for a few thumbnails
_NOT_SHOWN = "too large to show here"
_CAPTION = (
    ("identity", "identity_similarity", ".3f"),
    ("to gt", "identity_similarity_gt", ".3f"),
    ("dB", "psnr", ".1f"),
)


def gallery_rows(
    store: Store, plan: Plan, manifest: Sequence[Mapping[str, Any]], run: RestoreRun, recogniser: str | None
) -> list[GalleryRow]:
    """Rows of the run's first shards, lowest identity first; `recogniser` is the one that measured it."""
    found: list[dict[str, Any]] = []
    for shard, entry in zip(from_table(plan.shards), manifest, strict=True):
        if len(found) >= GALLERY_ROWS:
            break
        if entry["data"]:
            rows = _first_rows(store, entry["data"], GALLERY_ROWS - len(found), run.gt_column)
            inputs = _inputs(shard.with_secrets(run.source), run.column)
            found += [row | {"_input": inputs.get(row["id"])} for row in rows]
    pa.default_memory_pool().release_unused()  # Arrow keeps what it freed, and these may have been large images
    found.sort(key=lambda row: 2.0 if row["identity_similarity"] is None else row["identity_similarity"])
    return [GalleryRow(row["id"], tuple(_cells(row, run, recogniser))) for row in found]


def example_rejects(store: Store, manifest: Sequence[Mapping[str, Any]]) -> list[Reject]:
    """The first rejected rows of the run."""
    found: list[Reject] = []
    for path in (entry["rejected"] for entry in manifest if entry["rejected"]):
        table = pq.read_table(io.BytesIO(store.read(path)), columns=["id", "error", "detail"])
        found += [Reject(row["id"], row["error"], row["detail"]) for row in table.to_pylist()]
        if len(found) >= EXAMPLE_REJECTS:
            break
    return found[:EXAMPLE_REJECTS]


def caption(row: Mapping[str, Any]) -> str:
    """The scores of a restored row as a caption."""
    return " · ".join(f"{label} {row[key]:{form}}" for label, key, form in _CAPTION if row[key] is not None)


def _cells(row: Mapping[str, Any], run: RestoreRun, recogniser: str | None) -> Iterator[Cell]:
    yield Cell("input", row["_input"], "" if row["_input"] else f"no longer in the source, or {_NOT_SHOWN}")
    restored = embedded_bytes(row.get("restored"))
    word = row_word(row, recogniser)
    told = caption(row) + (f" · {word}" if word else "")
    yield Cell(run.method, restored, told if restored else _NOT_SHOWN, row["identity_similarity"], word)
    if run.gt_column:
        yield Cell("gt", embedded_bytes(row.get(run.gt_column)), "")


def _first_rows(store: Store, path: str, count: int, gt_column: str | None) -> list[dict[str, Any]]:
    shown = ["id", "faces", *(key for _, key, _ in _CAPTION)]
    with store.open_input(path) as source:
        parquet = pq.ParquetFile(source)
        if _fits(parquet, range(1)):
            shown += ["restored", *([gt_column] if gt_column else [])]
        batch = next(parquet.iter_batches(batch_size=count, columns=shown))
        rows: list[dict[str, Any]] = batch.to_pylist()
        return rows


def _inputs(shard: Shard, column: str) -> dict[str, bytes | None]:
    """Input images of a shard by row id; none if its file has changed or is gone, or if they are too large."""
    try:
        require_unchanged(shard)
        with shard.open() as source:
            parquet, groups = pq.ParquetFile(source), range(shard.row_group_start, shard.row_group_stop)
            if not _fits(parquet, groups):
                return {}
            table, _ = read_row_groups(parquet, groups, ["id", column])
    except (BfrError, OSError):
        return {}
    return dict(
        zip(row_ids(shard.name, shard.first_row, table), map(embedded_bytes, values(table[column])), strict=True)
    )


def _fits(parquet: pq.ParquetFile, groups: range) -> bool:
    return sum(parquet.metadata.row_group(group).total_byte_size for group in groups) <= MAX_GROUP_BYTES
