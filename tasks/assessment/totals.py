"""What the rows of an assessment add up to, unit by unit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.assessment.outcomes import NONE_FOUND, OUTCOMES
from tasks.assessment.picture_hash import NearDuplicates, near_duplicates
from tasks.assessment.table import DUPLICATES_SCHEMA
from tasks.assessment.units import Unit
from tasks.runs.selected_rows import CHANGED

EXAMPLES = 8  # of each outcome
SIDES = (0, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024)  # px
SEVERITIES = tuple(n / 10 for n in range(11))
GRAINS = (0, 0.5, 1, 2, 3, 4, 6, 8, 12)  # grey levels
BLURS = (0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4)  # px at 128 px
NOISES = (0, 1, 2, 4, 6, 8, 12, 16, 24)  # grey levels
COMPRESSIONS = SEVERITIES
_BINS: dict[str, tuple[float, ...]] = {
    "side": SIDES,
    "severity": SEVERITIES,
    "blur": BLURS,
    "noise": NOISES,
    "compression": COMPRESSIONS,
    "grain": GRAINS,
}
_WORKED = ("restored", "corrected", "kept", "too_large", "not_judged")  # what a network is asked about


@dataclass(frozen=True)
class Example:
    """A face to show, or a picture without one."""

    unit: Unit
    source_row: int
    face: int | None
    id: str
    facts: Mapping[str, Any]


class Totals:
    """Counts, distributions, hashes and examples of the rows that were added; memory grows by their ids and hashes."""

    def __init__(self, seed: int) -> None:
        self.pictures, self.faces = Counter[str](), Counter[str]()
        self.errors, self.presets = Counter[str](), Counter[str]()
        self.network_faces = self.network_faces_selected = 0  # that a restore of all, or of the changed, works on
        self._histograms = {name: np.zeros(len(bins), np.int64) for name, bins in _BINS.items()}
        self._hashes: list[NDArray[np.uint64]] = []
        self._ids: list[pa.ChunkedArray] = []
        self._examples: dict[str, list[Example]] = {}
        self._draw = Random(seed)

    def add(self, unit: Unit, table: pa.Table) -> None:
        """Adds the rows of a unit."""
        self._ids.append(table["id"])
        self._hashes.append(table["hash"].fill_null(0).to_numpy().astype(np.uint64))
        for row in table.drop_columns(["hash", "width", "height"]).to_pylist():
            self._add_row(unit, row)

    def _add_row(self, unit: Unit, row: dict[str, Any]) -> None:
        self.pictures[row["outcome"]] += 1
        if row["error"] is not None:
            self.errors[row["error"]] += 1
        if row["outcome"] == NONE_FOUND:
            self._offer(NONE_FOUND, Example(unit, row["source_row"], None, row["id"], row))
        for number, face in enumerate(row["faces"]):
            self.faces[face["outcome"]] += 1
            if face["preset"] is not None:
                self.presets[face["preset"]] += 1
            worked = face["outcome"] in _WORKED
            self.network_faces += worked
            self.network_faces_selected += worked and row["outcome"] in CHANGED
            for name, bins in _BINS.items():
                if face[name] is not None:
                    self._histograms[name][np.searchsorted(bins, face[name], side="right") - 1] += 1
            self._offer(face["outcome"], Example(unit, row["source_row"], number, row["id"], face))

    def _offer(self, outcome: str, example: Example) -> None:
        """Keeps `EXAMPLES` of each outcome, each face with the same chance."""
        kept = self._examples.setdefault(outcome, [])
        seen = self.pictures[outcome] if outcome == NONE_FOUND else self.faces[outcome]
        if len(kept) < EXAMPLES:
            kept.append(example)
        elif (place := self._draw.randrange(seen)) < EXAMPLES:
            kept[place] = example

    @property
    def examples(self) -> dict[str, list[Example]]:
        """A few of each outcome, in the order of `OUTCOMES`."""
        return {outcome: self._examples[outcome] for outcome in OUTCOMES if outcome in self._examples}

    @property
    def histograms(self) -> dict[str, dict[str, list[Any]]]:
        """Of the faces: the lower edges of the bins, of which the last is open, and the counts."""
        return {
            name: {"from": list(_BINS[name]), "count": counts.tolist()} for name, counts in self._histograms.items()
        }

    def duplicates(self) -> tuple[pa.Table, dict[str, int]]:
        """The rows that look like an earlier one, as `duplicates.parquet` has them, and how many in how many groups."""
        hashes = np.concatenate(self._hashes) if self._hashes else np.zeros(0, np.uint64)
        ids = pa.chunked_array([chunk for ids in self._ids for chunk in ids.chunks], pa.string())
        found: NearDuplicates = near_duplicates(hashes)
        rows = found.rows
        columns = [
            ids.take(pa.array(rows)),
            ids.take(pa.array(found.labels[rows])),
            pa.array(found.bits[rows], pa.int32()),
        ]
        table = pa.Table.from_arrays(columns, schema=DUPLICATES_SCHEMA)
        return table, {"pictures": len(rows), "groups": len(np.unique(found.labels[rows]))}
