"""What reviewers have decided about the rows of a run, as a column that conditions may use."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pyarrow as pa

from tasks.datasets.row_groups import value_at
from tasks.datasets.writer import rename_clashing
from tasks.runs.finished_run import FinishedRun
from tasks.runs.reviews import Reviews, read_reviews, row_verdict

REVIEW = "review"


def with_reviews(run: FinishedRun) -> tuple[FinishedRun, Reviews]:
    """The run whose `table` has the column `review` (approved, original, redo, mixed, or null while a changed face is
    open), and the decisions. The input's own column of that name is `source_review` in the table."""
    reviews = read_reviews(run.store, {file.shard: file.data for file in run.files})
    verdicts = defaultdict[tuple[str, int], dict[int, str]](dict)
    for key, decision in reviews.current.items():
        verdicts[key.shard, key.row][key.face] = decision.verdict
    found: list[str | None] = [None] * run.table.num_rows
    for file in run.files if verdicts else ():
        rows = run.source_rows[file.start : file.stop]
        for row in np.flatnonzero([(file.shard, number) in verdicts for number in rows.tolist()]).tolist():
            faces = value_at(run.table["faces"], file.start + row) or []
            given = verdicts[file.shard, int(rows[row])]
            found[file.start + row] = row_verdict([face["outcome"] for face in faces], given)
    table = run.table.rename_columns(rename_clashing(run.table.column_names, [REVIEW]))
    return replace(run, table=table.append_column(REVIEW, pa.array(found, pa.string()))), reviews
