"""From which cosine on two rows are near-duplicates, for each thing that they can be compared by: by real pairs.

A cosine is read beside two marks: `strangers`, a little above the highest of two different people, and `copies`, above
which 99 % of a picture's copies lie, as JPEG at quality 40 or half as large. `threshold` is between them, and above
every pair of two photos of one person as well: those are no copies.
"""

from __future__ import annotations

from dataclasses import dataclass

from bfr_models.errors import UsageError
from bfr_models.faces.recognisers import DLIB
from tasks.config.curate import AUTO, CurateRun
from tasks.curation.looks import PERCEPTUAL, known_looks
from tasks.runs.finished_run import FinishedRun


@dataclass(frozen=True)
class DedupeScale:
    """The marks of one network or formula, as cosines of two rows."""

    strangers: float
    threshold: float
    copies: float


SCALES = {DLIB: DedupeScale(0.98, 0.99, 0.996), PERCEPTUAL: DedupeScale(0.97, 0.99, 0.999)}
"""By benchmarks/dedupe_scale.py, on aligned faces (benchmarks/results/dedupe_scale.md): of 2.1 million pairs of people
the most alike are at 0.976 by dlib's embeddings and 0.968 by the pictures; of 82 pairs of photos of one person at 0.987
and 0.868."""

_NEEDS = {"embedding": "--keep-embeddings", "inception": "the Inception's features"}


def choose_dedupe(asked: CurateRun, run: FinishedRun) -> tuple[str, float] | None:
    """What rows are compared by, and the threshold; None if near-duplicates may stay.

    UsageError for features that the run does not have, for `auto` with features that were not measured, and for a
    threshold at which strangers would be near-duplicates.
    """
    looks = known_looks(run)
    if asked.dedupe_by != AUTO and asked.dedupe_by not in looks:
        raise UsageError(
            f"expected a run with {_NEEDS[asked.dedupe_by]} for --dedupe-by {asked.dedupe_by}, found one without; "
            "use --dedupe-by perceptual"
        )
    if asked.dedupe is None:
        return None
    fitting = looks if asked.dedupe_by == AUTO else {asked.dedupe_by: looks[asked.dedupe_by]}
    if asked.dedupe != AUTO:
        look, name = next(iter(fitting.items()))
        _require_above_strangers(asked.dedupe, look, name)
        return look, asked.dedupe
    for look, name in fitting.items():
        if name in SCALES:
            return look, SCALES[name].threshold
    raise UsageError(
        f"expected a number for --dedupe by {asked.dedupe_by} ({fitting[asked.dedupe_by]}), for which none was "
        "measured, found auto; give one and look at the report, or use --dedupe-by perceptual"
    )


def _require_above_strangers(threshold: float, look: str, name: str) -> None:
    scale = SCALES.get(name)
    if scale is not None and threshold < scale.strangers:
        raise UsageError(
            f"expected --dedupe of at least {scale.strangers} by {look} ({name}), since two different people can be as "
            f"alike as that, found {threshold:g}; use --dedupe auto, which is {scale.threshold} here"
        )
