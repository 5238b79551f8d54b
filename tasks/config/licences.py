"""The licences of the weights that a run uses."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Any

from bfr_models.faces.recognisers import DLIB, WEIGHTS
from bfr_models.metrics.measures import weights_of
from bfr_models.weights.catalogue import entry_of
from bfr_models.weights.files import find_weight, read_card
from tasks.config.resolve import ResolvedRun

Terms = dict[str, Any]
"""{weights, licence, licence_url, non_commercial} of one weight file."""

_DLIB_URL = "https://github.com/davisking/dlib-models"


def licences_in_use(resolved: ResolvedRun) -> list[Terms]:
    """The terms of the method's components and of the networks that find and score faces, each once."""
    recogniser, photos = resolved.recogniser, resolved.photos
    stems = [PurePath(weight["file"]).stem for weight in resolved.method.weights.values()]
    if recogniser and recogniser.name in WEIGHTS:
        stems.append(WEIGHTS[recogniser.name])
    stems += weights_of(resolved.measures)
    if photos and photos.detector.weights:
        stems.append(Path(photos.detector.weights).stem)
    terms = [_terms(stem) for stem in dict.fromkeys(stems)]
    if (recogniser and recogniser.name == DLIB) or (photos and photos.detector.weights is None):
        terms.append({"weights": "dlib", "licence": "CC0 1.0", "licence_url": _DLIB_URL, "non_commercial": False})
    return terms


def _terms(stem: str) -> Terms:
    """The terms in the file's card, else in the catalogue; null for a file of the user's own that has neither."""
    entry, path = entry_of(stem), find_weight(stem)
    card = read_card(path) if path else {}
    known = {
        "licence": entry.licence if entry else None,
        "licence_url": entry.licence_url if entry else None,
        "non_commercial": entry.non_commercial if entry else None,
    }
    return {"weights": entry.name if entry else stem, **{key: card.get(key, value) for key, value in known.items()}}
