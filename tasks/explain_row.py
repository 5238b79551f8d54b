"""Explains one row: the attempt, process, seed, scores and times that made it, or why it was rejected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bfr_models.errors import UsageError
from tasks.datasets.row_groups import value_at
from tasks.datasets.writer import rename_clashing
from tasks.report.identity_words import face_word, row_word
from tasks.runs import commits
from tasks.runs.finished_run import current_run
from tasks.runs.layout import DATA, REJECTED, SPEC
from tasks.runs.outcomes import row_words
from tasks.runs.plan import latest_plan
from tasks.runs.sealed import run_parquet
from tasks.runs.shards import Shard, from_table
from tasks.runs.spec import read_spec
from tasks.storage.redaction import redact
from tasks.storage.store import PARALLEL_READS, Store

_BYTES = (pa.types.is_binary, pa.types.is_large_binary)


def explain_row(destination: str, row_id: str) -> list[dict[str, Any]]:
    """All rows with this id of a run, or of the current one of generations, since ids need not be unique. UsageError if
    there is none (yet)."""
    store = current_run(destination)
    plan = latest_plan(store)
    settings = read_spec(store) if store.exists(SPEC) else {}
    recogniser = (settings.get("recogniser") or {}).get("name")
    enlarges = (settings.get("photos") or {}).get("upscale") in (2, 4)
    done = [shard for shard in from_table(plan.shards) if shard.commit in plan.done]
    # A source may have ids of its own that read like places.
    found = _found(store, [shard for shard in done if _covers(shard, row_id)], row_id) or _found(store, done, row_id)
    if not found:
        todo = f"; {plan.todo_count} shards are still to do" if plan.todo_count else ""
        raise UsageError(
            f"expected a row with the id {row_id!r} in {store}, found none in {len(done)} shards{todo}; ids are "
            "those of the source's column `id`, or <file>#<row>"
        )
    return [_with_words(row, recogniser, enlarges=enlarges) for row in found]


def _with_words(row: dict[str, Any], recogniser: str | None, *, enlarges: bool) -> dict[str, Any]:
    """The row, with what became of it (`state` only says in which folder it is) and what its identity similarities
    say."""
    if row["state"] == "rejected":
        became = f"rejected: {row['error']}"
    else:
        became = row_words(row.get("faces") or (), enlarged=enlarges)
    faces = [face | {"identity": face_word(face, recogniser)} for face in row.get("faces") or ()]
    word = row_word(row, recogniser)
    worded = {"identity": f"{row['identity_similarity']:.3f}, {word}"} if word is not None else {}
    return row | ({"faces": faces} if faces else {}) | worded | {"became": became}


def _covers(shard: Shard, row_id: str) -> bool:
    """Whether an id is of the form <file>#<row>, and that row is the shard's."""
    name, _, row = row_id.rpartition("#")
    return row.isdecimal() and shard.name == name and int(row) in shard.numbers


def _found(store: Store, shards: Sequence[Shard], row_id: str) -> list[dict[str, Any]]:
    records = commits.read_commits(store, [shard.commit for shard in shards])
    with ThreadPoolExecutor(PARALLEL_READS) as readers:
        pairs = zip(shards, records, strict=True)
        rows = readers.map(lambda pair: list(_rows(store, pair[0], pair[1], row_id)), pairs)
        return [row for some in rows for row in some]


def _rows(store: Store, shard: Shard, record: commits.Record, row_id: str) -> Iterator[dict[str, Any]]:
    made_by = {
        "file": record["files"],
        "shard": shard.id,
        "generation": record["generation"],
        "attempt": record["attempt"],
        "process": record["process"],
        "precision": record.get("precision"),
        "committed": record["committed"],
        "shard_seconds": record["seconds"],
        "source": redact(shard.source),
        "source_rows": [shard.numbers[0], shard.numbers[-1] + 1],
    }
    for folder in (DATA, REJECTED):
        if folder not in record["files"]:
            continue
        path = record["files"][folder]["path"]
        with run_parquet(store, path) as parquet:
            for values in _matches(parquet, row_id):
                state = "restored" if folder == DATA else "rejected"
                names = rename_clashing(list(values), [*made_by, "state", "identity", "became"])
                yield {"state": state, **dict(zip(names, values.values(), strict=True)), **made_by, "file": path}


def _matches(parquet: pq.ParquetFile, row_id: str) -> Iterator[dict[str, Any]]:
    """The rows with this id, without their images. Row groups that do not have the id are not read any further."""
    wanted = [name for name in parquet.schema_arrow.names if not _holds_bytes(parquet.schema_arrow.field(name).type)]
    for group in range(parquet.num_row_groups):
        ids = parquet.read_row_group(group, columns=["id"])["id"].to_pylist()
        if row_id in ids:
            table = parquet.read_row_group(group, columns=wanted)
            for place in (place for place, found in enumerate(ids) if found == row_id):
                yield {name: value_at(table[name], place) for name in table.column_names}


def _holds_bytes(kind: pa.DataType) -> bool:
    inner = [field.type for field in kind] if pa.types.is_struct(kind) else [kind]
    return any(test(one) for one in inner for test in _BYTES)
