"""What became of a face: the entry `outcome` of the column `faces`, a word and, after a colon, why. And of rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

RESTORED, CORRECTED, KEPT_ORIGINAL = "restored", "corrected", "kept_original"
"""The outcomes of faces that were scored: only they have a row in `features/`."""
SCORED = (RESTORED, CORRECTED, KEPT_ORIGINAL)
CHANGED = (RESTORED, CORRECTED)
"""The outcomes of faces whose pixels are not the input's."""


def outcome_word(outcome: str) -> str:
    """The part of an outcome that is counted: all of it, without the reason."""
    return outcome.partition(":")[0]


def why_kept(gain: float, min_gain: float) -> str:
    """Of a judged face: it would hardly be better, or its gain is not sure enough for `--max-harm`."""
    return "too likely to be worse" if gain >= min_gain else "no gain expected"


def is_changed(faces: Iterable[Mapping[str, Any]]) -> bool:
    """Whether any of these entries of the column `faces` has other pixels than the input."""
    return any(outcome_word(face["outcome"]) in CHANGED for face in faces)


def row_words(faces: Sequence[Mapping[str, Any]], *, enlarged: bool = False) -> str:
    """What became of a written row, and of how many faces: `kept as it was (1 face: kept_original)`."""
    became = "restored" if is_changed(faces) else "only enlarged" if enlarged else "kept as it was"
    counts = Counter(outcome_word(face["outcome"]) for face in faces)
    if len(counts) < 2:
        said = f"{len(faces)} face{'s' if len(faces) > 1 else ''}: {next(iter(counts))}" if faces else "no face found"
    else:
        said = f"{len(faces)} faces: {', '.join(f'{count} {word}' for word, count in counts.items())}"
    return f"{became} ({said})"


def written_words(totals: Mapping[str, Any]) -> str:
    """How many rows were written, and how many of them have a restored face; runs of earlier versions do not say."""
    written, changed = totals["restored"], totals.get("changed")
    if changed is None:
        return f"{written:,} written"
    return f"{written:,} written ({changed:,} restored, {written - changed:,} kept as they were)"


def standing_rejects(record: Mapping[str, Any]) -> dict[str, int]:
    """The rejected rows of a run by code, without those of files that have been packed anew since."""
    old = record.get("superseded_rejects", {})  # earlier versions do not say
    left = {code: count - old.get(code, 0) for code, count in record["rejects"].items()}
    return {code: count for code, count in left.items() if count}


def standing_rows(record: Mapping[str, Any]) -> int:
    """The rows of a run without those of files that have been packed anew since."""
    return int(record["totals"]["rows"] - record["totals"].get("superseded", 0))


def rejects_too_many(record: Mapping[str, Any]) -> bool:
    """Whether a finished run rejected more rows than `--max-rejects` allows."""
    return bool(sum(standing_rejects(record).values()) > record["arguments"]["max_rejects"] * standing_rows(record))
