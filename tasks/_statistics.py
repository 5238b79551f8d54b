"""What commit records add up to: totals, reasons, and each metric's distribution."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bfr_models.metrics.summary import Summary
from tasks.measures import WHY_NO_LPIPS
from tasks.recognisers import WHY_NONE

BIN_WIDTHS = {
    "identity_similarity": 0.001,
    "identity_similarity_gt": 0.001,
    "psnr": 0.01,
    "ssim": 0.001,
    "lpips": 0.001,
}
"""The metrics that a commit record sums up, with the resolution of their percentiles."""


def summarise(values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The statistics of some output rows, as a commit record holds them."""
    return {name: Summary.of((value[name] for value in values), width).to_json() for name, width in BIN_WIDTHS.items()}


@dataclass
class Totals:
    """The sums over the commit records of a run; exact in any order."""

    rows: int = 0
    restored: int = 0
    rejected: int = 0
    faces: int = 0
    accelerator_seconds: float = 0.0
    rejects: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)  # of faces
    summaries: dict[str, Summary] = field(
        default_factory=lambda: {name: Summary(width) for name, width in BIN_WIDTHS.items()}
    )

    def add(self, record: Mapping[str, Any]) -> None:
        """Counts one shard; each shard once."""
        self.rows += record["rows"]
        self.restored += record["restored"]
        self.rejected += record["rejected"]
        self.faces += record["faces"]
        self.accelerator_seconds += record["accelerator_seconds"]
        self.rejects.update(record["rejects"])
        self.outcomes.update(record["outcomes"])
        for name, summary in record["statistics"].items():
            self.summaries[name] += Summary.from_json(summary)

    def statistics(self, *, recognised: bool, has_gt: bool, has_lpips: bool) -> dict[str, Any]:
        """`statistics` of run.json. A metric that was not computed is null, with the reason."""
        found: dict[str, Any] = {"n_in": self.rows, "n_restored": self.restored, "n_rejected": self.rejected}
        for name, summary in self.summaries.items():
            why = "no row was scored"
            if name.startswith("identity") and not recognised:
                why = WHY_NONE
            elif name != "identity_similarity" and not has_gt:
                why = "no ground truth: give --gt-column"
            elif name == "lpips" and not has_lpips:
                why = WHY_NO_LPIPS
            found[name] = summary.to_report() if summary.n else {"value": None, "why": why}
        return found
