"""The rows of one shard: read with range requests, decoded, and written back as tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bfr_models.errors import RowError
from bfr_models.pixels import Uint8Image, face_tensor, to_uint8
from bfr_models.rng import derive_seed
from tasks._images import Picture, decode
from tasks._parquet import IMAGE, image_bytes, with_image_features
from tasks._shards import Shard, row_ids

FACE = pa.struct(
    [
        ("box", pa.list_(pa.float32())),
        ("landmarks", pa.list_(pa.float32())),
        ("score", pa.float32()),
        ("outcome", pa.string()),
        ("identity_similarity", pa.float32()),
        ("lpips", pa.float32()),
        ("sharpness", pa.float32()),
    ]
)
OUTPUT = pa.schema(
    [
        ("id", pa.string()),
        ("restored", IMAGE),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("faces", pa.list_(FACE)),
        ("faces_found", pa.int32()),
        ("identity_similarity", pa.float32()),
        ("identity_similarity_gt", pa.float32()),
        ("psnr", pa.float32()),
        ("ssim", pa.float32()),
        ("lpips", pa.float32()),
        ("method", pa.string()),
        ("fingerprint", pa.string()),
        ("seed", pa.int64()),
        ("seconds", pa.float32()),
        ("note", pa.string()),
    ]
)
REJECTED = pa.schema(
    [
        ("id", pa.string()),
        ("image", IMAGE),
        ("error", pa.string()),
        ("detail", pa.string()),
        ("source_file", pa.string()),
        ("source_row", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Row:
    """One input row. `index` counts from the shard's first row; `face` and `gt` are at the method's size."""

    index: int
    id: str
    seed: int
    data: bytes | None = None
    path: str | None = None
    width: int = 0  # of the input picture
    height: int = 0
    face: Uint8Image | None = None
    picture: Picture | None = None  # what the restored face is written like
    gt: Uint8Image | None = None
    error: RowError | None = None

    def failed(self, error: RowError) -> Row:
        """This row as one that could not be restored."""
        return replace(self, face=None, picture=None, gt=None, error=error)


@dataclass(frozen=True)
class ShardInput:
    rows: list[Row]
    table: pa.Table | None  # all columns; None where the row groups do not read
    column: str


def read_shard(shard: Shard, column: str, gt_column: str | None, run_seed: int, size: int) -> ShardInput:
    """Reads a shard and decodes its faces to `size` px. A row group that does not read becomes rows with an
    error each."""
    with shard.open() as source:
        parquet = pq.ParquetFile(source)
        try:
            table = parquet.read_row_groups(range(shard.row_group_start, shard.row_group_stop))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowKeyError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # storage trouble, which may pass; pages that do not decode have no number
            failure = RowError("unreadable", f"the row group does not read: {error}")
            ids = [f"{shard.name}#{shard.first_row + i}" for i in range(shard.rows)]
            rows = [Row(i, row_id, 0, error=failure) for i, row_id in enumerate(ids)]
            return ShardInput(rows, None, column)
    cells = table[column].to_pylist()
    gts = table[gt_column].to_pylist() if gt_column else [None] * len(cells)
    rows = []
    for i, (cell, gt, row_id) in enumerate(zip(cells, gts, row_ids(shard, table), strict=True)):
        path = cell.get("path") if isinstance(cell, dict) else None
        row = Row(i, row_id, derive_seed(run_seed, row_id), path=path)
        rows.append(_decoded(row, cell, gt, size))
    return ShardInput(rows, table, column)


def _decoded(row: Row, cell: object, gt: object, size: int) -> Row:
    try:
        row = replace(row, data=image_bytes(cell, _no_fetch))
        picture = decode(row.data)
        height, width = picture.pixels.shape[:2]
        return replace(
            row,
            width=width,
            height=height,
            face=_resized(picture.pixels, size),
            picture=_slim(picture, size),
            gt=None if gt is None else _decode_gt(gt, size),
        )
    except RowError as error:
        return row.failed(error)


def _slim(picture: Picture, size: int) -> Picture:
    """Without the pixels, unless they are of the output's size: a shard of large scans must fit in memory."""
    if picture.pixels.shape[:2] == (size, size):
        return picture
    return replace(picture, pixels=np.empty((0, 0, 3), np.uint8), alpha=None, deep=None)


def _resized(pixels: Uint8Image, size: int) -> Uint8Image:
    return to_uint8(face_tensor(pixels, size))


def _decode_gt(gt: object, size: int) -> Uint8Image:
    try:
        return _resized(decode(image_bytes(gt, _no_fetch)).pixels, size)
    except RowError as error:
        raise RowError("bad_gt", f"the ground truth does not decode: {error}") from None


def _no_fetch(address: str) -> bytes | None:
    raise RowError("missing", f"expected picture bytes, found none, only the name {address[:200]!r}")


def output_table(
    source: ShardInput, rows: Sequence[Row], values: Iterable[dict[str, Any]], keep_input: bool
) -> pa.Table:
    """The input's own columns of `rows`, then the results. An input column with a result's name moves aside."""
    assert source.table is not None, "rows of an unreadable row group are never restored"
    kept = source.table.take(pa.array([row.index for row in rows], pa.int64()))
    columns: dict[str, Any] = {}
    for name in kept.column_names:
        if name == "id" or (name == source.column and not keep_input):
            continue
        aside = name
        while aside in OUTPUT.names or (aside != name and aside in kept.column_names):
            aside = f"source_{aside}"
        columns[aside] = kept[name]
    results = pa.Table.from_pylist(list(values), schema=OUTPUT)
    noted = {key: value for key, value in (kept.schema.metadata or {}).items() if key == b"huggingface"}
    table = pa.table(columns | {name: results[name] for name in OUTPUT.names}, metadata=noted)
    images = [name for name in table.column_names if table.schema.field(name).type == IMAGE]
    return table.replace_schema_metadata(with_image_features(table.schema, images).metadata)


def rejected_table(shard: Shard, rows: Iterable[Row]) -> pa.Table:
    """The rows that could not be restored, with their untouched bytes and the reason."""
    values = [
        {
            "id": row.id,
            "image": {"bytes": row.data, "path": row.path},
            "error": row.error.code,
            "detail": row.error.detail,
            "source_file": shard.source,
            "source_row": shard.first_row + row.index,
        }
        for row in rows
        if row.error is not None
    ]
    return pa.Table.from_pylist(values, schema=with_image_features(REJECTED, ["image"]))
