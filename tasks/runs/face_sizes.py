"""How large a run's faces are in their pictures, and which preset would serve those that its own is too small for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bfr_models.judge.decision import is_larger
from bfr_models.metrics.summary import Summary
from bfr_models.registry import ResolvedMethod, methods
from bfr_models.weights.catalogue import entry_of
from bfr_models.weights.files import find_weight

SIDE_BIN = 4.0  # px
NOTABLE = 0.05  # share of the faces: fewer that are too large are not worth a warning
_PUBLISHED = "difface"  # the method whose larger networks can be fetched

Sizes = Mapping[str, Any]


def face_sizes(sides: Summary, size: int) -> dict[str, Any] | None:
    """For run.json: how many faces there are, their median side in px, and the share of those that a network of `size`
    px cannot draw. None without faces, or where no commit says."""
    if not sides.n:
        return None
    larger = sum(count for index, count in sides.bins.items() if is_larger((index + 1) * sides.bin_width, size))
    return {"n": sides.n, "median": sides.percentile(50), "network": size, "larger": larger / sides.n}


def too_small(method: ResolvedMethod, sizes: Sizes | None) -> str | None:
    """The warning for a preset that is smaller than the faces; None if it needs none."""
    if sizes is None or sizes["larger"] < NOTABLE:
        return None
    return (
        f"{sizes['larger']:.0%} of the faces are larger than {method.preset.name} can draw ({sizes['network']} px; the "
        f"median face has {sizes['median']:.0f} px): their finest detail is either kept from the input or lost; "
        f"{what_serves(method, sizes['median'])}"
    )


def what_serves(method: ResolvedMethod, side: float) -> str:
    """The first preset that can draw faces of `side` px, or else the largest, and how to get its weights."""
    larger: dict[int, str] = {}
    for name in (method.name, _PUBLISHED):
        for preset in methods()[name].presets:
            if preset.size <= method.preset.size or preset.task != method.preset.task:
                continue
            how = _to_have([stem for stem in preset.weights.values() if not find_weight(stem)])
            if how is not None:
                asked = f"--preset {preset.name}" if name == method.name else f"--method {name} --preset {preset.name}"
                larger.setdefault(preset.size, f"{asked} draws {preset.size} px{how}")
    enough = [size for size in larger if not is_larger(side, size)]
    return larger[min(enough, default=max(larger))] if larger else "no larger preset is published"


def _to_have(missing: list[str]) -> str | None:
    """The command that fetches these weights; None if one of them is not published, or only by hand."""
    entries = [entry_of(stem) for stem in missing]
    known = [entry for entry in entries if entry is not None and not entry.by_hand]
    if len(known) < len(entries):
        return None
    commands = dict.fromkeys(f"bfr weights fetch {entry.to_fetch}" for entry in known)
    trust = " --trust-on-first-use" if any(entry.sha256 is None for entry in known) else ""
    return "".join(f"; fetch it with `{command}{trust}`" for command in commands)
