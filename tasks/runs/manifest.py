"""`manifest.parquet`: the files of a run that count, shard by shard."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from tasks.runs import commits

MANIFEST = pa.schema(
    [
        ("shard", pa.string()),
        ("generation", pa.int32()),
        ("attempt", pa.string()),
        ("source", pa.string()),
        ("data", pa.string()),
        ("features", pa.string()),
        ("rejected", pa.string()),
        ("sha256", pa.string()),
        ("rows", pa.int64()),
        ("restored_rows", pa.int64()),
        ("rejected_rows", pa.int64()),
    ]
)


RunRecord = dict[str, Any]


def manifest_row(record: commits.Record) -> dict[str, Any]:
    files = record["files"]
    return {
        "shard": record["shard"],
        "generation": record["generation"],
        "attempt": record["attempt"],
        "source": record["source"],
        "data": files.get("data", {}).get("path"),
        "features": files.get("features", {}).get("path"),
        "rejected": files.get("rejected", {}).get("path"),
        "sha256": files.get("data", {}).get("sha256"),
        "rows": record["rows"],
        "restored_rows": record["restored"],
        "rejected_rows": record["rejected"],
    }
