"""The settings of a curation."""

from typing import Any

import pytest

from tasks.config.curate import CurateRun


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"dedupe": 1.5}, "above 0 and of at most 1, or auto"),
        ({"per_stratum": 2}, "expected --stratify with --per-stratum"),
        ({"dedupe_by": "name"}, "known: auto, embedding, inception, perceptual"),
        ({"destination": "/run/inside"}, "outside the run"),
    ],
)
def test_settings_that_contradict_are_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CurateRun.model_validate({"source": "/run", "destination": "/out", **asked})
