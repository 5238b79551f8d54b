"""Columns that only a file's path holds: `year=1923/place=Bonn/0.parquet`, as Hive, Spark and Arrow write datasets."""

from __future__ import annotations

from urllib.parse import unquote

import pyarrow as pa

_NULL = "__HIVE_DEFAULT_PARTITION__"


def folder_columns(name: str) -> dict[str, str | None]:
    """The columns in the path of a file inside its dataset, and their value for all rows of the file."""
    steps = (step.partition("=") for step in name.split("/")[:-1])
    pairs = {unquote(key): unquote(value) for key, equals, value in steps if key and equals}
    return {key: None if value == _NULL else value for key, value in pairs.items()}


def with_folder_columns(table: pa.Table, name: str) -> pa.Table:
    """The table with these columns, as text, behind its own. A column of the same name in the file stays as it is."""
    for key, value in folder_columns(name).items():
        if key not in table.column_names:
            column = (
                pa.nulls(table.num_rows, pa.string()) if value is None else pa.repeat(pa.scalar(value), table.num_rows)
            )
            table = table.append_column(key, column)
    return table
