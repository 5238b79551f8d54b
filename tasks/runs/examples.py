"""The faces that a report shows first: of each outcome those whose identity is least certain, and those of most gain.

Each commit record names a few of its shard, and closing a run keeps the first of all of them: the report of a million
rows shows the most doubtful of a million, and no data file is read to find them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.runs.layout import DATA
from tasks.runs.outcomes import outcome_word

MOST = 12  # faces of a run, for each outcome and reason
DIGITS = 4

Example = dict[str, Any]
"""{file, row, face, outcome, identity, gain}: `row` counts in the data file, `face` in the row's column `faces`."""


def examples_of(rows: Iterable[Sequence[Mapping[str, Any]]]) -> list[Example]:
    """Of the column `faces` of one data file: the first of each outcome by either reason."""
    found: dict[str, list[Example]] = defaultdict(list)
    for number, faces in enumerate(rows):
        for place, face in enumerate(faces):
            outcome, identity, gain = outcome_word(face["outcome"]), face["identity_similarity"], face["gain"]
            found[outcome].append(
                {
                    "row": number,
                    "face": place,
                    "outcome": outcome,
                    "identity": _rounded(identity),
                    "gain": _rounded(gain),
                }
            )
    return [one for faces in found.values() for one in _first(faces, 1)]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), DIGITS)


def _first(faces: Sequence[Example], most: int) -> list[Example]:
    """The `most` least certain faces and the `most` of highest gain, each once."""
    least = sorted(faces, key=lambda face: (2.0 if face["identity"] is None else face["identity"], *_place(face)))
    gains = sorted(faces, key=lambda face: (2.0 if face["gain"] is None else -face["gain"], *_place(face)))
    return list({_place(face): face for face in [*least[:most], *gains[:most]]}.values())


def _place(face: Example) -> tuple[str, int, int]:
    return face.get("file", ""), face["row"], face["face"]


@dataclass
class Examples:
    """The first of all shards. The order of the shards does not matter."""

    _found: dict[str, list[Example]] = field(default_factory=lambda: defaultdict(list))

    def add(self, record: Mapping[str, Any]) -> None:
        """Adds one commit; those of earlier versions name no faces."""
        for face in record.get("examples", ()):
            kept = self._found[face["outcome"]]
            kept.append({"file": record["files"][DATA]["path"], **face})
            if len(kept) > 8 * MOST:
                kept[:] = _first(kept, MOST)

    def to_json(self) -> list[Example]:
        """For run.json: the outcomes take turns."""
        return list(_in_turn([_first(faces, MOST) for _, faces in sorted(self._found.items())]))


def _in_turn(lists: Sequence[Sequence[Example]]) -> Iterator[Example]:
    for place in range(max(map(len, lists), default=0)):
        yield from (faces[place] for faces in lists if place < len(faces))
