"""Groups are connected components, however they are found."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tasks.curation.near_duplicates import EXACT_WORK, NEIGHBOURS, ROUNDING, Forest, cosines, neighbourhoods

ALWAYS_INDEX = 0.0


def components(n: int, pairs: list[tuple[int, int]]) -> list[int]:
    """The smallest node that each one reaches, by walking."""
    near: list[set[int]] = [set() for _ in range(n)]
    for a, b in pairs:
        near[a].add(b)
        near[b].add(a)
    found = []
    for start in range(n):
        seen, left = {start}, [start]
        while left:
            new = near[left.pop()] - seen
            seen |= new
            left += new
        found.append(min(seen))
    return found


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]]]:
    n = draw(st.integers(1, 30))
    nodes = st.integers(0, n - 1)
    return n, draw(st.lists(st.tuples(nodes, nodes), max_size=60))


@given(graphs(), st.integers(1, 10))
def test_links_make_the_connected_components(graph: tuple[int, list[tuple[int, int]]], at_once: int) -> None:
    n, pairs = graph
    forest = Forest(n)
    for start in range(0, len(pairs), at_once):
        a, b = np.array(pairs[start : start + at_once], np.int64).T
        forest.link(a, b)
    assert forest.labels.tolist() == components(n, pairs)


def units(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    found = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return found / np.linalg.norm(found, axis=-1, keepdims=True)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(2, 5), st.floats(0.5, 1.0), st.integers(0, 1000))
def test_groups_are_those_of_all_pairs(n: int, d: int, threshold: float, seed: int) -> None:
    vectors = units(n, d, seed=seed)
    near = vectors @ vectors.T >= threshold - ROUNDING
    pairs = [(int(a), int(b)) for a, b in np.argwhere(near)]
    assert neighbourhoods(vectors, threshold).labels.tolist() == components(n, pairs)


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_the_index_agrees_with_all_pairs(kind: type) -> None:
    people = units(150, 64)
    rng = np.random.default_rng(1)
    vectors = people[rng.integers(0, 150, 900)] + 0.01 * rng.standard_normal((900, 64)).astype(np.float32)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(kind)
    exact, quick = neighbourhoods(vectors, 0.95), neighbourhoods(vectors, 0.95, ALWAYS_INDEX)
    assert exact.index["index"] == "exact" and quick.index["index"] == "usearch hnsw"
    assert 1 < len(np.unique(exact.labels)) <= 150
    assert np.array_equal(exact.labels, quick.labels)
    assert np.array_equal(quick.labels, neighbourhoods(vectors, 0.95, ALWAYS_INDEX).labels)


@pytest.mark.parametrize("side", [1, 7, 40])
def test_groups_do_not_depend_on_how_many_are_compared_at_once(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = units(40, 3)
    whole = neighbourhoods(vectors, 0.97).labels
    assert 1 < len(np.unique(whole)) < 40
    monkeypatch.setattr("tasks.curation.near_duplicates._SIDE", side)
    assert np.array_equal(neighbourhoods(vectors, 0.97).labels, whole)


def test_groups_larger_than_a_neighbourhood_are_put_together() -> None:
    """Two clusters of equal vectors close together: neither appears among the nearest neighbours of the other."""
    a = units(1, 32)[0]
    b = a + 0.2 * units(1, 32, seed=1)[0]
    b /= np.linalg.norm(b)
    assert 0.95 < a @ b < 0.999
    vectors = np.concatenate([np.tile(a, (3 * NEIGHBOURS, 1)), np.tile(b, (3 * NEIGHBOURS, 1)), units(40, 32, seed=2)])
    found = neighbourhoods(vectors, 0.95, ALWAYS_INDEX).labels
    assert set(found[: 6 * NEIGHBOURS]) == {0}
    assert np.array_equal(found, neighbourhoods(vectors, 0.95).labels)


@pytest.mark.parametrize("exact_work", [EXACT_WORK, ALWAYS_INDEX])
@pytest.mark.parametrize(("d", "kind"), [(128, np.float32), (2048, np.float16)])
def test_equal_vectors_are_together_at_a_cosine_of_one(d: int, kind: type, exact_work: float) -> None:
    """Of non-negative numbers, as the Inception's features are: rounded to float16 they have lengths of their own."""
    vectors = np.repeat(np.abs(units(100, d)).astype(kind), 3, axis=0)
    found = neighbourhoods(vectors, 1.0, exact_work).labels
    assert found.tolist() == np.repeat(np.arange(0, 300, 3), 3).tolist()
    assert cosines(vectors, np.arange(300), found) == pytest.approx(1, abs=ROUNDING)


def test_cosines_are_of_pairs() -> None:
    vectors = units(5, 8)
    assert cosines(vectors, np.array([0, 1]), np.array([0, 3])) == pytest.approx([1, vectors[1] @ vectors[3]], abs=1e-6)
