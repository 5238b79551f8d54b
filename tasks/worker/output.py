"""Turns restored rows into the Parquet files of a shard and the facts for its commit. Touches no store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from bfr_models.device import precision_on
from bfr_models.metrics.frechet import FeatureSource
from bfr_models.metrics.summary import Summary
from tasks.config.code import running_code
from tasks.datasets.image_column import IMAGE, with_image_features
from tasks.datasets.row_groups import take_rows
from tasks.datasets.row_ids import digest_of_ids
from tasks.datasets.writer import encode_table, rename_clashing, table_of
from tasks.runs.examples import examples_of
from tasks.runs.face_sizes import SIDE_BIN
from tasks.runs.layout import DATA, FEATURES, REJECTED
from tasks.runs.outcomes import is_changed, outcome_word
from tasks.runs.shards import Shard
from tasks.scoring.embedding_sums import embedding_sums
from tasks.scoring.face_vectors import FaceFeatures, features_table
from tasks.scoring.statistics import distributions, summarise
from tasks.storage.redaction import redact
from tasks.worker.job import Job
from tasks.worker.read_shard import Row, ShardInput

ROW_GROUP_ROWS = 64

FACE = pa.struct(
    [
        ("box", pa.list_(pa.float32())),
        ("landmarks", pa.list_(pa.float32())),
        ("score", pa.float32()),
        ("outcome", pa.string()),
        ("identity_similarity", pa.float32()),
        ("lpips", pa.float32()),
        ("sharpness", pa.float32()),
        ("side", pa.float32()),
        ("sharpness_input", pa.float32()),
        ("gain", pa.float32()),
        ("gain_spread", pa.float32()),
        ("harm", pa.float32()),
    ]
)
DATA_SCHEMA = pa.schema(
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
REJECTED_SCHEMA = pa.schema(
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
class Done:
    """A row that needs no more work."""

    row: Row
    values: dict[str, Any] | None = None  # for `data/`; None if it failed: then the row has the error
    features: Mapping[int, FaceFeatures] = field(default_factory=dict)  # of its scored faces, by place, in order


def shard_output(
    job: Job, shard: Shard, source: ShardInput, results: Sequence[Done], inception: FeatureSource | None
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The Parquet files of a shard, by folder, and the facts for its commit record.

    `results` has all rows, in any order; `inception` is the network that made their features. Removes the encoded
    images from `results`.
    """
    results = sorted(results, key=lambda done: done.row.index)
    restored = [(done.row, done.values) for done in results if done.values is not None]
    failed = [done.row for done in results if done.values is None]
    values = [values for _, values in restored]
    files: dict[str, bytes] = {}
    if values:
        table = output_table(source, [row for row, _ in restored], values, job.keep_input)
        for row_values in values:
            del row_values["restored"]  # already in the table; do not hold a very large image twice
        files[DATA] = encode_table(table, ROW_GROUP_ROWS)
    keep = job.measures.keep_embeddings
    if inception or keep:
        vectors = [(done.row.id, place, seen) for done in results for place, seen in done.features.items()]
        files[FEATURES] = encode_table(features_table(vectors, inception, keep), ROW_GROUP_ROWS)
    if failed:
        files[REJECTED] = encode_table(rejected_table(shard, source, failed), ROW_GROUP_ROWS)
    faces = [face for row in values for face in row["faces"]]
    outcomes = Counter(outcome_word(face["outcome"]) for face in faces)
    return files, {
        "fingerprint": job.method.fingerprint,
        "settings": job.settings,
        "code": running_code(),
        "precision": _precision(job),
        "source": redact(shard.source),
        "rows": len(source.rows),
        "ids": digest_of_ids(row.id for row in source.rows),
        "restored": len(values),
        "changed": sum(is_changed(row["faces"]) for row in values),
        "rejected": len(failed),
        "rejects": dict(Counter(row.error.code for row in failed if row.error)),
        "faces": outcomes.total(),
        "outcomes": dict(outcomes),
        "sides": Summary.of((face["side"] for face in faces), SIDE_BIN).to_json(),
        "statistics": summarise(values),
        "distributions": distributions(values),
        "examples": examples_of(row["faces"] for row in values),
        "embedding_sums": _embedding_sums(job, shard, results),
        "accelerator_seconds": round(sum(row["seconds"] for row in values), 3),
    }


def _precision(job: Job) -> str | None:
    """What the networks computed in here, which is each machine's own choice for "auto"; None without any."""
    asked = getattr(job.method.options, "precision", None)
    return None if asked is None else precision_on(job.device, asked)


def _embedding_sums(job: Job, shard: Shard, results: Sequence[Done]) -> dict[str, str]:
    if job.recogniser is None or not job.measures.distances:
        return {}
    return embedding_sums([seen for done in results for seen in done.features.values()], job.recogniser, shard.id)


def output_table(
    source: ShardInput, rows: Sequence[Row], values: Iterable[dict[str, Any]], keep_input: bool
) -> pa.Table:
    """The input's columns of `rows`, then the results. Input columns named like a result get the prefix `source_`."""
    assert source.table is not None, "rows of an unreadable row group are never restored"
    names = source.table.column_names
    carried = [name for name in names if name != "id" and (keep_input or name != source.columns.image)]
    kept = take_rows(source.table.select(carried), [row.index for row in rows])
    aside = dict(zip(names, rename_clashing(names, DATA_SCHEMA.names), strict=True))
    columns = {aside[name]: kept[name] for name in carried}
    results = table_of(list(values), DATA_SCHEMA)
    noted = {key: value for key, value in (kept.schema.metadata or {}).items() if key == b"huggingface"}
    table = pa.table(columns | {name: results[name] for name in DATA_SCHEMA.names}, metadata=noted)
    images = [name for name in table.column_names if table.schema.field(name).type == IMAGE]
    return table.replace_schema_metadata(with_image_features(table.schema, images).metadata)


def rejected_table(shard: Shard, source: ShardInput, rows: Iterable[Row]) -> pa.Table:
    """The rows that could not be restored, each with its original bytes and the reason."""
    values = [
        {
            "id": row.id,
            "image": source.untouched(row),
            "error": row.error.code,
            "detail": row.error.detail,
            "source_file": redact(shard.source),
            "source_row": shard.numbers[row.index],
        }
        for row in rows
        if row.error is not None
    ]
    return table_of(values, with_image_features(REJECTED_SCHEMA, ["image"]))
