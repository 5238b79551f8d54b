"""Groups of vectors that are nearly the same: connected components of "cosine at least t".

Few vectors are compared each with each. Many go through usearch's HNSW, which may miss a pair: it is built by one
thread, so that the same vectors give the same groups, and what it finds is checked with the vectors themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32] | NDArray[np.float16]
"""(n, d), of length 1; in float16 within 1e-4, and so divided by their own length wherever they are compared."""

Places = NDArray[np.int64]

EXACT_WORK = 5e12  # n x n x d up to which each is compared with each: with more the index is faster
NEIGHBOURS = 16
CONNECTIVITY, EXPANSION_ADD, EXPANSION_SEARCH = 16, 64, 64
_SLACK = 0.01  # of a cosine out of bfloat16 (4e-3) or int8
ROUNDING = 4e-6  # a copy's cosine is not quite 1: off by up to 1e-6 in float32, over 2,048 numbers
_CELLS = 2**23  # numbers of a block of vectors
_SIDE = 2896  # vectors that are compared with as many at once: 2**23 cosines
_WIDE = 512  # dimensions above which the index holds bytes


@dataclass(frozen=True, eq=False)
class Neighbourhoods:
    """Of each vector: its group (the smallest place in it); and how they were found."""

    labels: Places
    index: dict[str, Any]


class Forest:
    """Disjoint sets over 0..n-1, many links at a time."""

    def __init__(self, n: int) -> None:
        self.labels: Places = np.arange(n)

    def link(self, a: Places, b: Places) -> bool:
        """Puts a[i] and b[i] together; whether anything was apart."""
        linked = False
        while True:
            a, b = self.labels[a], self.labels[b]
            apart = a != b
            if not apart.any():
                return linked
            a, b, linked = a[apart], b[apart], True
            np.minimum.at(self.labels, np.maximum(a, b), np.minimum(a, b))
            while not np.array_equal(shorter := self.labels[self.labels], self.labels):
                self.labels = shorter


def neighbourhoods(vectors: Vectors, threshold: float, exact_work: float = EXACT_WORK) -> Neighbourhoods:
    """The groups of (n, d) unit vectors; `threshold` in (0, 1]."""
    n, d = vectors.shape
    forest = Forest(n)
    if float(n) * n * d <= exact_work:
        everyone = np.arange(n)
        _link_exactly(forest, vectors, everyone, everyone, threshold)
        return Neighbourhoods(forest.labels, {"index": "exact", "vectors": n})
    try:
        full = _link_neighbours(forest, vectors, threshold)
    except RuntimeError as error:  # the index answers an interrupt with one of its own
        if "terminated" in str(error):
            raise KeyboardInterrupt from error
        raise
    while True:  # a vector with near ones only may have more of them than were looked at
        heads = np.unique(forest.labels)
        crowded = np.unique(forest.labels[full])
        if not _link_exactly(forest, vectors, crowded, heads, threshold):
            break
    facts = {"index": "usearch hnsw", "vectors": n, "neighbours": NEIGHBOURS, "connectivity": CONNECTIVITY}
    return Neighbourhoods(forest.labels, facts | {"expansion": [EXPANSION_ADD, EXPANSION_SEARCH]})


def cosines(vectors: Vectors, a: Places, b: Places) -> NDArray[np.float32]:
    """The cosine of vectors a[i] and b[i], a block at a time."""
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
    """Compares each of some with each of others, of the same ones each pair once; whether groups have grown."""
    linked = False
    cosines_here, near_here = np.empty(_SIDE**2, np.float32), np.empty(_SIDE**2, np.bool_)  # new ones take longer
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
    """Links each vector with its nearest by the index; the vectors that have nothing but near ones."""
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
        assert isinstance(found, BatchMatches), "of more than one vector"
        keys, near = found.keys.astype(np.int64), found.distances <= 1 - threshold + _SLACK
        near &= np.arange(keys.shape[1]) < np.asarray(found.counts)[:, None]
        rows, columns = np.nonzero(near)
        a, b = rows + start, keys[rows, columns]
        is_near = cosines(vectors, a, b) >= threshold - ROUNDING
        forest.link(a[is_near], b[is_near])
        full.append(start + np.flatnonzero(near.all(axis=1)))
    return np.concatenate(full)
