"""How much work goes into a face: draft, standard or best, in place of a method's own calls. Imports no torch.

`standard` is every preset as it is. What the others are was measured on people whom no network was trained on
(benchmarks/steps.py); where more calls made nothing better, `best` is `standard`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from bfr_models.errors import UsageError

Effort = Literal["draft", "standard", "best"]
EFFORTS: tuple[str, ...] = get_args(Effort)
STANDARD = "standard"

Options = Mapping[str, Any]

_OF_FACE128: Mapping[str, Mapping[str, Options]] = {
    "difface": {"draft": {"steps": 1, "self_ensemble": False}, "best": {}},
    "diffbfr": {
        "draft": {"steps": 1, "steps_high": 1, "steps_flow": 2, "steps_texture": 1, "self_ensemble": False},
        "best": {},
    },
    "clr_face": {"draft": {"steps": 1, "self_ensemble": False}, "best": {}},
}
OPTIONS: Mapping[tuple[str, str], Mapping[str, Options]] = {
    (method, preset): efforts for method, efforts in _OF_FACE128.items() for preset in ("face128", "face256")
}
"""By method and preset: measured with `face128`, whose chains those of `face256` begin with."""


def effort_options(method: str, preset: str, effort: str, given: Options) -> dict[str, Any]:
    """What is not the preset's own. UsageError if nobody measured that preset, or if the user has `given` one of these
    options as well."""
    if effort == STANDARD:
        return {}
    if (method, preset) not in OPTIONS:
        raise UsageError(
            f"expected quality standard for {method} with {preset}, found {effort}: nothing else was measured; choose "
            "--steps yourself, or one of " + ", ".join(f"{one} with {of}" for one, of in OPTIONS)
        )
    chosen = OPTIONS[method, preset][effort]
    if twice := [name for name in chosen if name in given]:
        raise UsageError(
            f"expected either quality {effort} or {', '.join(twice)}, found both: it sets {', '.join(chosen)}; leave "
            "one of them out"
        )
    return dict(chosen)
