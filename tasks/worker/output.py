"""Restored rows as the files of a shard."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from tasks.datasets.image_column import IMAGE, with_image_features
from tasks.datasets.row_groups import take_rows
from tasks.runs.shards import Shard
from tasks.storage.redaction import redact
from tasks.worker.read_shard import Row, ShardInput

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
        ("identity_degrees", pa.float32()),
        ("identity_degrees_gt", pa.float32()),
        ("ms_ssim", pa.float32()),
        ("niqe", pa.float32()),
        ("lmd_dlib_5", pa.float32()),
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


def output_table(
    source: ShardInput, rows: Sequence[Row], values: Iterable[dict[str, Any]], keep_input: bool
) -> pa.Table:
    """The input's own columns of `rows`, then the results. An input column with a result's name moves aside."""
    assert source.table is not None, "rows of an unreadable row group are never restored"
    names = source.table.column_names
    carried = [name for name in names if name != "id" and (keep_input or name != source.columns.image)]
    kept = take_rows(source.table.select(carried), [row.index for row in rows])
    columns: dict[str, Any] = {}
    for name in carried:
        aside = name
        while aside in OUTPUT.names or (aside != name and aside in names):
            aside = f"source_{aside}"
        columns[aside] = kept[name]
    results = pa.Table.from_pylist(list(values), schema=OUTPUT)
    noted = {key: value for key, value in (kept.schema.metadata or {}).items() if key == b"huggingface"}
    table = pa.table(columns | {name: results[name] for name in OUTPUT.names}, metadata=noted)
    images = [name for name in table.column_names if table.schema.field(name).type == IMAGE]
    return table.replace_schema_metadata(with_image_features(table.schema, images).metadata)


def rejected_table(shard: Shard, source: ShardInput, rows: Iterable[Row]) -> pa.Table:
    """The rows that could not be restored, with their untouched bytes and the reason."""
    values = [
        {
            "id": row.id,
            "image": source.untouched(row),
            "error": row.error.code,
            "detail": row.error.detail,
            "source_file": redact(shard.source),
            "source_row": shard.first_row + row.index,
        }
        for row in rows
        if row.error is not None
    ]
    return pa.Table.from_pylist(values, schema=with_image_features(REJECTED, ["image"]))
