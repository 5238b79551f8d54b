"""Near-duplicates among the rows of a run: which are dropped, and which one is kept for each group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.curation.near_duplicates import cosines, neighbourhoods
from tasks.curation.row_vectors import row_vectors
from tasks.runs.finished_run import FinishedRun, Rows


@dataclass(frozen=True, eq=False)
class Duplicates:
    """The dropped rows; for each, the row that is kept in its place, and the cosine of the two."""

    dropped: Rows
    kept: Rows
    similarity: NDArray[np.float32]
    facts: dict[str, Any]


def find_duplicates(run: FinishedRun, rows: Rows, rank: Rows, look: str, threshold: float) -> Duplicates:
    """Drops all but the best row (lowest `rank`) of each group of near-duplicates."""
    seen = row_vectors(run, rows, look)
    found = neighbourhoods(seen.vectors, threshold)
    order = np.lexsort((rank[seen.rows], found.labels))
    labels, first, sizes = np.unique(found.labels[order], return_index=True, return_counts=True)
    heads = order[first]  # the best row of each group, in the order of `labels`
    head_of = heads[np.searchsorted(labels, found.labels)]
    dropped = np.flatnonzero(head_of != np.arange(len(seen.rows)))
    facts = {
        "threshold": threshold,
        **seen.source,
        **found.index,
        "without_vector": len(rows) - len(seen.rows),
        "groups": int((sizes > 1).sum()),
        "largest_group": int(sizes.max(initial=0)),
        "dropped": len(dropped),
    }
    similarity = cosines(seen.vectors, dropped, head_of[dropped])
    return Duplicates(seen.rows[dropped], seen.rows[head_of[dropped]], similarity, facts)
