"""Which faces of a run its report shows: the first of each outcome, then others from all over the run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.report.cards import MAX_CARDS
from tasks.runs.outcomes import CHANGED, outcome_word
from tasks.runs.sealed import run_parquet
from tasks.storage.store import Store

EXAMPLE_SHARE = 2 / 3  # of the cards: the rest is for faces that nothing makes special
EXAMPLE_FILES, OTHER_FILES = 24, 8
FACTS = ("id", "faces", "width", "seconds", "identity_similarity_gt", "psnr")

Place = tuple[int, int]
"""The number of a row in its data file, and of a face in the row."""
Rows = dict[int, dict[str, Any]]
"""Rows of a data file without their images, by number."""


def chosen_faces(
    store: Store, examples: Sequence[Mapping[str, Any]], files: Sequence[str]
) -> dict[str, tuple[list[Place], list[str], Rows]]:
    """By data file: the faces, the ids of all its rows, and the rows of the faces. `examples` are those of run.json."""
    wanted = _wanted(examples, set(files))
    spread = _spread(files, OTHER_FILES)
    left = MAX_CARDS - sum(map(len, wanted.values()))
    chosen = {}
    for number, path in enumerate(spread):
        share = -(-left // (len(spread) - number))
        chosen[path] = found = _of_file(store, path, wanted.get(path, []), share)
        left -= len(found[0]) - len(wanted.get(path, []))
    return chosen | {path: _of_file(store, path, places, 0) for path, places in wanted.items() if path not in chosen}


def gains(row: Mapping[str, Any]) -> float:
    """What the faces of a row that were changed are expected to have gained; -1 if none was."""
    found = [face.get("gain") or 0.0 for face in row["faces"] or () if outcome_word(face["outcome"]) in CHANGED]
    return sum(found) if found else -1.0


def _wanted(examples: Sequence[Mapping[str, Any]], files: set[str]) -> dict[str, list[Place]]:
    wanted: dict[str, list[Place]] = defaultdict(list)
    for number, example in enumerate(one for one in examples if one["file"] in files):
        if number >= EXAMPLE_SHARE * MAX_CARDS:
            break
        if example["file"] in wanted or len(wanted) < EXAMPLE_FILES:
            wanted[example["file"]].append((example["row"], example["face"]))
    return dict(wanted)


def _spread(files: Sequence[str], count: int) -> list[str]:
    """Some of the files, evenly."""
    if len(files) <= count:
        return list(files)
    return [files[round(i * (len(files) - 1) / (count - 1))] for i in range(count)]


def _of_file(store: Store, path: str, wanted: Sequence[Place], more: int) -> tuple[list[Place], list[str], Rows]:
    """The wanted faces and up to so many more, in the order of the file."""
    with run_parquet(store, path) as parquet:
        table = parquet.read(columns=[name for name in FACTS if name in parquet.schema_arrow.names])
    rows: list[dict[str, Any]] = table.to_pylist()
    every = [(number, place) for number, row in enumerate(rows) for place in range(len(row["faces"] or ()))]
    taken = sorted({*wanted, *[place for place in every if place not in set(wanted)][:more]})
    return taken, [row["id"] for row in rows], {number: rows[number] for number, _ in taken}
