"""Makes (lq, gt) pairs from clean faces, with a seed per row."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa

from bfr_models.degradation.degrade import degrade
from bfr_models.degradation.presets import Preset, preset_of_row
from bfr_models.errors import RowError, UsageError
from bfr_models.pixels import face_tensor, to_uint8
from bfr_models.rng import derive_seed
from tasks.config.degrade import DegradeRun
from tasks.datasets.folder_columns import with_folder_columns
from tasks.datasets.image_column import IMAGE, find_image_column, image_bytes, with_image_features
from tasks.datasets.row_groups import batches, opened_parquet, values
from tasks.datasets.row_ids import row_ids
from tasks.datasets.writer import DatasetWriter
from tasks.images.codec import decode, encode
from tasks.runs.comparison import is_degraded, note_degraded
from tasks.runs.early import check_degrade
from tasks.runs.source import open_source
from tasks.storage.redaction import redact
from tasks.storage.store import FileVersion, Store

BATCH_ROWS = 64


@dataclass(frozen=True)
class Skipped:
    """A row that cannot be degraded: its image does not decode, or is not square."""

    id: str
    error: str
    detail: str


@dataclass
class DegradeReport:
    """What was written, and the rows that were left out."""

    rows: int = 0
    files: int = 0
    skipped: list[Skipped] = field(default_factory=list)


def degrade_dataset(run: DegradeRun) -> DegradeReport:
    """Writes `image` (degraded), `gt` (the original at the asked size) and the input's other columns. UsageError if no
    row has a face that can be degraded: nothing is written then."""
    destination, mark = Store(run.destination), check_degrade(run)
    report, row = DegradeReport(), 0
    with (
        DatasetWriter(destination, run.rows_per_file, run.row_group_rows, mark=mark) as writer,
        ThreadPoolExecutor(os.cpu_count()) as workers,
    ):
        for store, file in open_source(run.source):
            for table, first_row in _batches(store, file, run.column):
                ids = row_ids(file.name, first_row, table)
                cells = list(values(table[run.column]))
                presets = [preset_of_row(run.preset, row + i) for i in range(len(ids))]
                row += len(ids)
                pairs = list(workers.map(partial(_pair, run=run), ids, cells, presets))
                report.skipped += [pair for pair in pairs if isinstance(pair, Skipped)]
                if (out := _with_pairs(table, run.column, ids, pairs)).num_rows:
                    writer.write(out)
    report.rows, report.files = writer.rows, len(writer.files)
    if not report.rows:
        why = "".join(f"; {one.id}: {one.error}: {one.detail}" for one in report.skipped[:3])
        raise UsageError(
            f"expected square faces in the column {run.column!r} of {redact(run.source)}, found none in {row} rows"
            f"{why}; name the right --column, or align the faces first"
        )
    return report


def _batches(store: Store, file: FileVersion, column: str) -> Iterator[tuple[pa.Table, int]]:
    with opened_parquet(store, file) as parquet:
        find_image_column(parquet.schema_arrow, column)
        first_row = 0
        for batch in batches(parquet, BATCH_ROWS):
            yield with_folder_columns(pa.Table.from_batches([batch]), file.name), first_row
            first_row += batch.num_rows


def _pair(row_id: str, cell: object, preset: Preset, run: DegradeRun) -> tuple[bytes, bytes] | Skipped:
    """(lq, gt) as PNG."""
    try:
        pixels = decode(image_bytes(cell)).pixels
    except RowError as error:
        return Skipped(row_id, error.code, error.detail)
    height, width = pixels.shape[:2]
    if height != width:
        return Skipped(row_id, "not_square", f"expected a square face, found {width} x {height}; align it first")
    gt = to_uint8(face_tensor(pixels, run.size or width))
    return encode(degrade(gt, preset, derive_seed(run.seed, row_id))), encode(gt)


def _with_pairs(table: pa.Table, column: str, ids: list[str], pairs: list[tuple[bytes, bytes] | Skipped]) -> pa.Table:
    """The rows that have a pair, with the columns `image` and `gt` in place of the input's."""
    done = [(i, pair) for i, pair in enumerate(pairs) if not isinstance(pair, Skipped)]
    kept = table.take(pa.array([i for i, _ in done], pa.int64()))
    others = [name for name in kept.column_names if name not in ("id", "image", "gt", column)]
    columns: dict[str, Any] = {"id": pa.array([ids[i] for i, _ in done], pa.string())}
    for place, name in enumerate(("image", "gt")):
        columns[name] = pa.array([{"bytes": pair[place], "path": None} for _, pair in done], IMAGE)
    out = pa.table(columns | {name: kept[name] for name in others})
    return out.replace_schema_metadata(with_image_features(out.schema, ["image", "gt"]).metadata)


def degrade_once(run: DegradeRun) -> None:
    """`degrade_dataset`, unless the destination was made with the same settings from the same source files."""
    if not is_degraded(run):
        degrade_dataset(run)
        note_degraded(run)
