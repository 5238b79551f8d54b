"""The faces that a report of any size shows first: the most doubtful of all, and those that gain most."""

from __future__ import annotations

import random
from typing import Any

from tasks.runs.examples import MOST, Examples, examples_of


def face(outcome: str, identity: float | None, gain: float | None = None) -> dict[str, Any]:
    return {"outcome": outcome, "identity_similarity": identity, "gain": gain}


def commit(number: int, faces: list[dict[str, Any]]) -> dict[str, Any]:
    return {"files": {"data": {"path": f"data/{number:04}.parquet"}}, "examples": examples_of([faces])}


def test_a_shard_names_the_least_certain_face_of_each_outcome_and_that_of_most_gain() -> None:
    rows = [
        [face("restored", 0.97, 0.1), face("kept_original: no gain", 1.0, -0.2)],
        [face("restored", 0.91, 0.0), face("restored", 0.98, 0.4), face("skipped: too small", None)],
    ]
    found = [(one["outcome"], one["row"], one["face"]) for one in examples_of(rows)]
    assert sorted(found) == [("kept_original", 0, 1), ("restored", 1, 0), ("restored", 1, 1), ("skipped", 1, 2)]


def test_of_many_shards_the_first_of_all_are_kept_in_any_order() -> None:
    rng = random.Random(0)
    commits = [
        commit(number, [face("restored", rng.uniform(0.8, 1), rng.uniform(0, 1)), face("kept_original", 1.0, 0.0)])
        for number in range(1000)
    ]
    every = [one for made in commits for one in made["examples"] if one["outcome"] == "restored"]
    results = []
    for _ in range(3):
        rng.shuffle(commits)
        examples = Examples()
        for made in commits:
            examples.add(made)
        results.append(examples.to_json())
    assert results[0] == results[1] == results[2] and len(results[0]) <= 4 * MOST
    assert {one["outcome"] for one in results[0][:2]} == {"restored", "kept_original"}  # they take turns
    restored = [one for one in results[0] if one["outcome"] == "restored"]
    worst = sorted(one["identity"] for one in every)[:MOST]
    best = sorted((one["gain"] for one in every), reverse=True)[:MOST]
    assert set(worst) <= {one["identity"] for one in restored} and set(best) <= {one["gain"] for one in restored}


def test_commits_of_earlier_versions_name_none() -> None:
    examples = Examples()
    examples.add({"files": {}})
    assert examples.to_json() == []
