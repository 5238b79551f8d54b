"""Whether a run is scored by the very recogniser that guides its method; if so, the run scores itself."""

from __future__ import annotations

from collections.abc import Mapping

from bfr_models.registry import ResolvedMethod
from bfr_models.weights.files import read_card, require_weight


def guiding_recognisers(resolved: ResolvedMethod) -> list[dict[str, str]]:
    """Name and sha256 of the recogniser that guides the method, of the file it was converted from, and of the
    recogniser it was distilled from. Empty for a method without guidance."""
    component = getattr(resolved.preset, "guided_by", None)
    if component is None or not resolved.options.guided:
        return []
    card = read_card(require_weight(resolved.preset.weights[component]))
    source, teacher = card.get("source", {}), card.get("distilled_from", {})
    candidates = [(card.get("name", component), card["sha256"]), (source.get("file"), source.get("sha256"))]
    candidates.append((teacher.get("name"), teacher.get("sha256")))
    return [{"name": str(name), "sha256": sha256} for name, sha256 in candidates if sha256]


def self_scored(resolved: ResolvedMethod, scorer: Mapping[str, str] | None) -> str | None:
    """The warning for a run that `scorer` (name and sha256) scores; None if it needs none."""
    if scorer is None:
        return None
    same = [g for g in guiding_recognisers(resolved) if scorer["sha256"] == g["sha256"] or scorer["name"] == g["name"]]
    if not same:
        return None
    return (
        f"the identity scores are self-fulfilling: {resolved.name} is guided by {same[0]['name']}, which also scores "
        "it; score with another recogniser, or restore with guidance 0"
    )
