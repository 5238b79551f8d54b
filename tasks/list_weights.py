"""Lists all known weights, which of them are on this machine, and whether those are intact."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bfr_models.errors import BfrError
from bfr_models.registry import methods
from bfr_models.weights import catalogue
from bfr_models.weights.files import ASSETS, cache_folder, check_weight, find_weight, read_card


def list_weights() -> list[dict[str, Any]]:
    """All weights known or found, those of the package first: licence, origin, size, sha256 and path.

    `bytes` and `sha256` are those of the local file, or of the published one if there is none; None is unknown. `state`
    is present, absent or damaged.
    """
    return [_describe(stem) for stem in _stems()]


def verify_weights() -> list[dict[str, Any]]:
    """As `list_weights`, for local files only, each of them hashed; `why` says what is wrong with a damaged one."""
    return [_verified(row) for row in list_weights() if row["state"] != "absent"]


def _stems() -> Iterator[str]:
    """File names without extension: of presets, of published files, and of cards that are here; each once."""
    presets = [stem for spec in methods().values() for p in spec.presets for stem in p.weights.values()]
    published = [entry.stem for entry in catalogue.CATALOGUE]
    cards = [card for folder in (ASSETS, cache_folder()) for card in sorted(folder.glob("*.json"))]
    found = [card.stem for card in cards if not card.name.startswith(".")]
    return iter(dict.fromkeys([*presets, *published, *found]))


def _describe(stem: str) -> dict[str, Any]:
    entry = catalogue.entry_of(stem)
    row: dict[str, Any] = {"name": stem, "what": "", "licence": None, "non_commercial": False, "origin": None}
    row |= {"stem": stem, "bytes": None, "sha256": None, "state": "absent", "path": None}
    if entry:
        row |= {key: getattr(entry, key) for key in ("name", "what", "licence", "non_commercial", "origin", "sha256")}
        row["bytes"] = entry.size
    else:
        row["licence"] = _licence_of_preset(stem)
    try:
        path = find_weight(stem)
        if path is not None:
            card = read_card(path)
            row |= {"state": "present", "path": str(path), "bytes": path.stat().st_size, "sha256": card["sha256"]}
    except BfrError as error:
        row |= {"state": "damaged", "why": str(error)}
    return row


def _licence_of_preset(stem: str) -> str | None:
    presets = (preset for spec in methods().values() for preset in spec.presets)
    return next((preset.licence for preset in presets if stem in preset.weights.values()), None)


def _verified(row: dict[str, Any]) -> dict[str, Any]:
    try:
        path = find_weight(row["stem"])
        if path is not None:
            check_weight(path)
    except BfrError as error:
        return {**row, "state": "damaged", "why": str(error)}
    return row
