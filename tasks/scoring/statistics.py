"""What commit records add up to: totals, rejection reasons, and the distribution of each metric."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bfr_models.faces.recognisers import WHY_NONE
from bfr_models.metrics.measures import EXTRA, WHY_NO_LPIPS
from bfr_models.metrics.protocols import is_lower_better
from bfr_models.metrics.summary import Summary
from tasks.runs.examples import Examples
from tasks.runs.face_sizes import SIDE_BIN
from tasks.runs.timings import Timings

BIN_WIDTHS = {
    "identity_similarity": 0.001,
    "identity_similarity_gt": 0.001,
    "identity_degrees": 0.05,
    "identity_degrees_gt": 0.05,
    "psnr": 0.01,
    "ssim": 0.001,
    "lpips": 0.001,
    "ms_ssim": 0.001,
    "niqe": 0.01,
    "lmd_dlib_5": 0.01,
}
"""The metrics that a commit record sums up, with the bin width of their histograms: percentiles are that exact."""

DISTRIBUTIONS = {"gain": 0.005, "sharpness_input": 0.1, "sharpness": 0.1, "seconds": 0.01}
"""What else a commit record sums up: of faces, except the seconds, which are rows'."""

LOWER_IS_BETTER = frozenset(filter(is_lower_better, BIN_WIDTHS))
"""The metrics for which a larger value is worse."""

WITHOUT_GT = ("identity_similarity", "identity_degrees", "niqe")
WHY_TOO_SMALL = {
    "niqe": "expected textured faces of 192 px or more, found none",
    "ms_ssim": "expected faces of 161 px or more, found none",
}


def summarise(values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The statistics of some output rows, as a commit record stores them."""
    return {name: Summary.of((value[name] for value in values), width).to_json() for name, width in BIN_WIDTHS.items()}


def distributions(values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How seconds of some output rows, and what else is known of their faces, are distributed."""
    faces = [face for value in values for face in value["faces"]]
    return {
        name: Summary.of((one[name] for one in (values if name == "seconds" else faces)), width).to_json()
        for name, width in DISTRIBUTIONS.items()
    }


def empty_summaries() -> dict[str, Summary]:
    """The summary of no values, for each metric."""
    return {name: Summary(width) for name, width in BIN_WIDTHS.items()}


@dataclass
class Totals:
    """Sums over the commit records of a run. Metrics are summed as integers, so the order does not matter."""

    rows: int = 0
    restored: int = 0
    rejected: int = 0
    changed: int | None = 0  # rows with a restored face; None: commits of earlier versions do not say
    faces: int = 0
    accelerator_seconds: float = 0.0
    precisions: Counter[str] = field(default_factory=Counter)  # of the networks, by rows
    rejects: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)  # of faces
    sides: Summary = field(default_factory=lambda: Summary(SIDE_BIN))  # of faces, px of the picture
    summaries: dict[str, Summary] = field(default_factory=empty_summaries)
    distributions: dict[str, Summary] = field(default_factory=dict)
    timings: Timings = field(default_factory=Timings)
    examples: Examples = field(default_factory=Examples)

    def add(self, record: Mapping[str, Any]) -> None:
        """Adds one shard. Add each shard once."""
        self.rows += record["rows"]
        self.restored += record["restored"]
        self.rejected += record["rejected"]
        known = self.changed is not None and "changed" in record
        self.changed = self.changed + record["changed"] if known else None
        self.faces += record["faces"]
        self.accelerator_seconds += record["accelerator_seconds"]
        if precision := record.get("precision"):
            self.precisions[precision] += record["rows"]
        self.timings.add(record)
        self.examples.add(record)
        for name, summary in record.get("distributions", {}).items():  # earlier versions have none
            self.distributions[name] = self.distributions.get(name, Summary(DISTRIBUTIONS[name])) + Summary.from_json(
                summary
            )
        self.rejects.update(record["rejects"])
        self.outcomes.update(record["outcomes"])
        if sides := record.get("sides"):
            self.sides += Summary.from_json(sides)
        for name, summary in record["statistics"].items():
            self.summaries[name] += Summary.from_json(summary)

    def statistics(
        self, *, recognised: bool, has_gt: bool, has_lpips: bool, extra: Collection[str] = ()
    ) -> dict[str, Any]:
        """`statistics` of run.json. A metric that was not computed is null, with the reason; an extra metric that was
        not requested is absent."""
        unasked = {column for name, column in EXTRA.items() if name not in extra}
        found: dict[str, Any] = {"n_in": self.rows, "n_restored": self.restored, "n_rejected": self.rejected}
        for name, summary in self.summaries.items():
            if name in unasked:
                continue
            why = "no row was scored"
            if name.startswith("identity") and not recognised:
                why = WHY_NONE
            elif name not in WITHOUT_GT and not has_gt:
                why = "no ground truth: give --gt-column"
            elif name == "lpips" and not has_lpips:
                why = WHY_NO_LPIPS
            elif name in WHY_TOO_SMALL:
                why = WHY_TOO_SMALL[name]
            found[name] = summary.to_report() if summary.n else {"value": None, "why": why}
        return found
