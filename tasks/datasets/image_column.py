"""The image column of a dataset: its type, finding it, and reading an image out of a cell."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from bfr_models.errors import UsageError, did_you_mean
from tasks.datasets.row_groups import values

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""The type of an image column, as Hugging Face `datasets` stores it."""

Fetch = Callable[[str], bytes | None]
"""Address in a cell -> the image's bytes. It decides which addresses may be followed at all, since a hostile dataset
can name any file or host."""


def with_image_features(schema: pa.Schema, columns: Iterable[str]) -> pa.Schema:
    """The schema with the metadata that makes `datasets` load these columns (of type `IMAGE`) as images."""
    metadata = dict(schema.metadata or {})
    features = {name: feature for name, feature in _features(metadata).items() if name in schema.names}
    features |= {name: {"_type": "Image"} for name in columns}
    metadata[b"huggingface"] = json.dumps({"info": {"features": features}}).encode()
    return schema.with_metadata(metadata)


def _features(metadata: Mapping[bytes, bytes]) -> Mapping[str, Any]:
    """The features that a schema notes for `datasets`; none if what is noted is something else."""
    try:
        found = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def find_image_column(schema: pa.Schema, name: str = "image") -> pa.Field:
    """The image column of a dataset. UsageError, which lists the columns, if there is none of this name and type."""
    require_distinct(schema)
    known = ", ".join(f"{field.name} ({_short(field.type)})" for field in schema)
    if name not in schema.names:
        images = [field.name for field in schema if _holds_images(field.type) and not pat.is_string(field.type)]
        meant = did_you_mean(name, schema.names) or did_you_mean(images[0], images) if images else ""
        raise UsageError(
            f"expected an image column {name!r}, found the columns {known}; name the right one with --column{meant}"
        )
    field = schema.field(name)
    if not _holds_images(field.type):
        raise UsageError(
            f"expected images in column {name!r} (binary, struct<bytes, path>, or string with URLs), found "
            f"{field.type}; the columns are {known}; name the right one with --column"
        )
    return field


def require_distinct(schema: pa.Schema) -> None:
    """UsageError, which names them, if columns have the same name: nobody could say which is meant."""
    if twice := [name for name, count in Counter(schema.names).items() if count > 1]:
        raise UsageError(
            f"expected columns of different names, found several named {', '.join(map(repr, twice))}; rename them: "
            "parquet.rename_columns in PyArrow, or a SELECT with AS in DuckDB"
        )


def image_bytes(value: object, fetch: Fetch | None = None) -> bytes | None:
    """The encoded image in one cell of an image column (as `to_pylist` gives it): no bytes of an empty file, None if
    the cell is empty.

    UsageError for an address if there is no `fetch`.
    """
    if isinstance(value, Mapping):
        if value.get("bytes") is not None or fetch is None:
            return value.get("bytes")
        value = value.get("path")
    if value is None or value == "":
        return None
    if isinstance(value, str):
        if fetch is None:
            raise UsageError(f"expected image bytes in the column, found the address {value[:80]!r}")
        return fetch(value)
    if isinstance(value, bytes):
        return value
    raise TypeError(f"expected bytes, a struct with `bytes`, or a string, got {type(value).__name__}")


def with_image_fields(table: pa.Table, name: str) -> pa.Table:
    """The table with each further field of its image column (`struct<bytes, path, width, ...>`) as a column of its own
    (`image.width`), behind the others: images are written as bytes and path alone."""
    kind = table.schema.field(name).type
    further = [field.name for field in kind if field.name not in IMAGE.names] if pat.is_struct(kind) else []
    for field in further:
        if f"{name}.{field}" not in table.column_names:
            table = table.append_column(f"{name}.{field}", pc.struct_field(table[name], field))
    return table


def addresses(column: pa.ChunkedArray) -> list[str]:
    """The addresses in an image column of strings; none for a column of bytes."""
    kind = column.type.value_type if pat.is_dictionary(column.type) else column.type
    if not (pat.is_string(kind) or pat.is_large_string(kind) or pat.is_string_view(kind)):
        return []
    return [address for address in values(column) if address]


def _holds_images(kind: pa.DataType) -> bool:
    if pat.is_struct(kind):
        return "bytes" in kind.names and _holds_images(kind.field("bytes").type)
    if pat.is_dictionary(kind):
        return _holds_images(kind.value_type)
    tests = (
        pat.is_binary, pat.is_large_binary, pat.is_binary_view, pat.is_string, pat.is_large_string, pat.is_string_view,
    )  # fmt: skip
    return any(test(kind) for test in tests)


def _short(kind: pa.DataType) -> str:
    text = str(kind)
    return text if len(text) <= 60 else text[:57] + "..."


def embedded_bytes(cell: Any) -> bytes | None:
    """The encoded image in a cell that holds bytes; None for an address and for an empty cell."""
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    return data if isinstance(data, bytes) else None
