"""Groups of nearly equal vectors: the connected components of the relation "cosine at least t".

Up to `EXACT_WORK` all pairs are compared. Beyond it usearch's HNSW index (Malkov and Yashunin, arXiv:1603.09320) finds
candidates, which are checked with the vectors themselves. The index may miss a pair; it is built by one thread, so that
the same vectors always give the same groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32] | NDArray[np.float16]
"""(n, d), of length 1. Rounded to float16 their length is off by up to 1e-4, so they are normalised again before each
comparison."""

Places = NDArray[np.int64]
"""Indices of vectors."""

EXACT_WORK = 5e12  # n x n x d up to which all pairs are compared; beyond it the index is faster
NEIGHBOURS = 16  # that the index is asked for, for each vector
CONNECTIVITY, EXPANSION_ADD, EXPANSION_SEARCH = 16, 64, 64  # HNSW's M, efConstruction and efSearch
_SLACK = 0.01  # error of the index's cosines, which come from bfloat16 (4e-3) or int8: candidates only
ROUNDING = 4e-6  # the cosine of two copies is not exactly 1: off by up to 1e-6 in float32 with 2,048 dimensions
_CELLS = 2**23  # numbers in a block of vectors: 32 MiB as float32
_SIDE = 2896  # vectors on each side of a block of comparisons: 2**23 cosines
_WIDE = 512  # dimensions above which the index holds int8, to save memory


@dataclass(frozen=True, eq=False)
class Neighbourhoods:
    """The group of each vector, named by the smallest index in it, and how the groups were found."""

    labels: Places
    index: dict[str, Any]


class Forest:
    """Disjoint sets over 0..n-1 (union-find), with many links at a time. A label is the smallest member of its set."""

    def __init__(self, n: int) -> None:
        self.labels: Places = np.arange(n)

    def link(self, a: Places, b: Places) -> bool:
        """Joins the sets of a[i] and b[i] for all i; returns whether any two were apart."""
        linked = False
        while True:
            a, b = self.labels[a], self.labels[b]
            apart = a != b
            if not apart.any():
                return linked
            a, b, linked = a[apart], b[apart], True
            np.minimum.at(self.labels, np.maximum(a, b), np.minimum(a, b))
            # Pointer jumping: each label takes its label's label, until all point to the root of their set.
            while not np.array_equal(shorter := self.labels[self.labels], self.labels):
                self.labels = shorter


def neighbourhoods(vectors: Vectors, threshold: float, exact_work: float = EXACT_WORK) -> Neighbourhoods:
    """The groups of (n, d) unit vectors; `threshold` in (0, 1]."""
    n, d = vectors.shape
    forest = Forest(n)
    if float(n) * n * d <= exact_work:
        all_places = np.arange(n)
        _link_exactly(forest, vectors, all_places, all_places, threshold)
        return Neighbourhoods(forest.labels, {"index": "exact", "vectors": n})
    try:
        full = _link_neighbours(forest, vectors, threshold)
    except RuntimeError as error:  # what usearch turns Ctrl-C into
        if "terminated" in str(error):
            raise KeyboardInterrupt from error
        raise
    # If all neighbours that the index returned are near, the vector may have further near ones. So the heads of such
    # groups are compared with all heads, until no group grows any more.
    while True:
        heads = np.unique(forest.labels)
        crowded = np.unique(forest.labels[full])
        if not _link_exactly(forest, vectors, crowded, heads, threshold):
            break
    facts = {"index": "usearch hnsw", "vectors": n, "neighbours": NEIGHBOURS, "connectivity": CONNECTIVITY}
    return Neighbourhoods(forest.labels, facts | {"expansion": [EXPANSION_ADD, EXPANSION_SEARCH]})


def cosines(vectors: Vectors, a: Places, b: Places) -> NDArray[np.float32]:
    """The cosines of vectors a[i] and b[i], computed block by block."""
    found = np.empty(len(a), np.float32)
    step = max(_CELLS // max(vectors.shape[1], 1), 1)
    for start in range(0, len(a), step):
        some = slice(start, start + step)
        x, y = (_units(vectors[places[some]]) for places in (a, b))
        found[some] = np.einsum("nd,nd->n", x, y)
    return found


def _units(vectors: Vectors) -> NDArray[np.float32]:
    if vectors.dtype == np.float32:
        return vectors.astype(np.float32, copy=False)
    wide = vectors.astype(np.float32)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    return wide


def _link_exactly(forest: Forest, vectors: Vectors, some: Places, others: Places, threshold: float) -> bool:
    """Links all near pairs between `some` and `others` (each pair once if they are the same); whether any set grew."""
    linked = False
    # Buffers for all blocks: allocating new ones each time takes longer.
    cosines_here, near_here = np.empty(_SIDE**2, np.float32), np.empty(_SIDE**2, np.bool_)
    for left in range(0, len(others), _SIDE):
        there = others[left : left + _SIDE]
        y = _units(vectors[there]).T
        for top in range(0, min(len(some), left + _SIDE) if some is others else len(some), _SIDE):
            here = some[top : top + _SIDE]
            shape, size = (len(here), len(there)), len(here) * len(there)
            found = np.matmul(_units(vectors[here]), y, out=cosines_here[:size].reshape(shape))
            near = np.greater_equal(found, threshold - ROUNDING, out=near_here[:size].reshape(shape))
            a, b = np.divmod(np.flatnonzero(near), len(there))
            linked |= forest.link(here[a], there[b])
    return linked


def _link_neighbours(forest: Forest, vectors: Vectors, threshold: float) -> Places:
    """Links each vector with its near neighbours by the index; returns those with no other neighbours."""
    from usearch.index import BatchMatches, Index

    n, d = vectors.shape
    index = Index(
        ndim=d,
        metric="cos",
        dtype="bf16" if d <= _WIDE else "i8",
        connectivity=CONNECTIVITY,
        expansion_add=EXPANSION_ADD,
        expansion_search=EXPANSION_SEARCH,
    )
    step = max(_CELLS // d, 1)
    for start in range(0, n, step):
        some = np.arange(start, min(start + step, n))
        index.add(some.astype(np.uint64), vectors[some].astype(np.float32, copy=False), threads=1)
    full: list[Places] = []
    for start in range(0, n, step):
        stop = min(start + step, n)
        found = index.search(vectors[start:stop].astype(np.float32, copy=False), NEIGHBOURS)
        assert isinstance(found, BatchMatches), "the answer to a batch of queries"
        keys, near = found.keys.astype(np.int64), found.distances <= 1 - threshold + _SLACK
        near &= np.arange(keys.shape[1]) < np.asarray(found.counts)[:, None]
        rows, columns = np.nonzero(near)
        a, b = rows + start, keys[rows, columns]
        is_near = cosines(vectors, a, b) >= threshold - ROUNDING
        forest.link(a[is_near], b[is_near])
        full.append(start + np.flatnonzero(near.all(axis=1)))
    return np.concatenate(full)
