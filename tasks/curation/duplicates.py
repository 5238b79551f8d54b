"""Near-duplicates of a run: which rows go, and which stays for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.config.curate import CurateRun
from tasks.curation.near_duplicates import cosines, neighbourhoods
from tasks.curation.row_vectors import choose_look, row_vectors
from tasks.runs.finished_run import FinishedRun, Rows


@dataclass(frozen=True, eq=False)
class Duplicates:
    """Rows that were dropped, and for each the row that is kept in its place; their cosines."""

    dropped: Rows
    kept: Rows
    similarity: NDArray[np.float32]
    facts: dict[str, Any]


def find_duplicates(asked: CurateRun, run: FinishedRun, rows: Rows, rank: Rows, threshold: float) -> Duplicates:
    """Of each group of near-duplicates all but the best."""
    look = choose_look(run) if asked.dedupe_by == "auto" else asked.dedupe_by
    seen = row_vectors(run, rows, look)
    found = neighbourhoods(seen.vectors, threshold)
    order = np.lexsort((rank[seen.rows], found.labels))
    labels, first, sizes = np.unique(found.labels[order], return_index=True, return_counts=True)
    heads = order[first]  # the best place of each group
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
