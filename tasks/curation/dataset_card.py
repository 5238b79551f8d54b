"""README.md of a curated dataset: a dataset card, which tells Hugging Face's `load_dataset` what the dataset is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from tasks.runs.finished_run import FinishedRun, Rows
from tasks.runs.layout import DATA

DATA_FILES = {"parquet": f"{DATA}/*.parquet", "webdataset": f"{DATA}/*.tar", "folder": f"{DATA}/*/*"}
"""Named in the card, because `load_dataset` would otherwise take `dropped.parquet` as part of the dataset."""

_LICENCE = re.compile(r"licen[cs]e", re.IGNORECASE)
_MOST_VALUES = 50  # different licences listed per column


def dataset_card(run: FinishedRun, record: Mapping[str, Any], rows: Rows) -> str:
    """The card of these rows of the run; `record` is what curation.json will hold."""
    counts, made = record["counts"], record["run"]
    asked = [name for name, value in record["arguments"].items() if value not in (None, False)]
    lines = [
        "---",
        "configs:",
        "- config_name: default",
        f"  data_files: {DATA_FILES[record['arguments']['format']]}",
        "---",
        "",
        "# Restored faces",
        "",
        f"{counts['kept']} of the {counts['rows']} rows that the method {_code(made['method'])} restored, chosen by "
        f"`bfr curate` from {_code(made['source'])}, a run finished {made['finished']}. `curation.json` has all that "
        "is said here and the statistics, `report/index.html` is the same for people, and `dropped.parquet` has the "
        "rows that were left out, each with the reason.",
        "",
        "## How it was made",
        "",
        *(f"- {name}: {_code(record['arguments'][name])}" for name in asked),
        "",
        *(f"1. {_code(step['step'])}: {step['dropped']} dropped, {step['left']} left" for step in record["steps"]),
        "",
        "## Licences",
        "",
        *_licences(run.table.take(pa.array(rows)), record["licences"]),
    ]
    return "\n".join(lines) + "\n"


def _licences(kept: pa.Table, weights: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The licences that the kept rows have in columns named for them, and those of the weights."""
    columns = [field.name for field in kept.schema if _LICENCE.search(field.name) and _is_text(field.type)]
    if not columns:
        yield "- The rows have no column with their licences: they are those of the run's source."
    for column in columns:
        found = pc.value_counts(kept[column].combine_chunks()).to_pylist()
        found.sort(key=lambda one: -one["counts"])
        for one in found[:_MOST_VALUES]:
            yield f"- column {_code(column)}, {one['counts']} rows: {_code(one['values'])}"
        if len(found) > _MOST_VALUES:
            yield f"- column {_code(column)}: {len(found) - _MOST_VALUES} other values"
    for terms in weights:
        note = ", no commercial use" if terms["non_commercial"] else ""
        yield f"- weights {_code(terms['weights'])}: {_code(terms['licence'] or 'not known')}{note}"


def _is_text(kind: pa.DataType) -> bool:
    return _is_text(kind.value_type) if pat.is_dictionary(kind) else pat.is_string(kind) or pat.is_large_string(kind)


def _code(value: Any) -> str:
    """A value as inline code: its text cannot be taken for Markdown."""
    return f"`{' '.join(str(value).replace('`', ' ').split())[:300]}`"
