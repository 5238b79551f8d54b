"""The page of an assessment: what was found, how it is distributed, and faces of each outcome at their own size."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image

from bfr_models.pixels import Uint8Image
from tasks.assessment.outcomes import (
    CORRECTED,
    FAILED,
    KEPT,
    NONE_FOUND,
    NOT_JUDGED,
    OVER_THE_CAP,
    REJECTED,
    RESTORED,
    TOO_LARGE,
    TOO_SMALL,
)
from tasks.assessment.totals import Example
from tasks.report.page import plain, printable, template

SHOWN_SIDE = 320  # px; of a larger face the middle is shown, at 100 %
PICTURE_SIDE = 240  # px of a whole picture

MEANINGS = {
    RESTORED: "the network's face would take its place",
    CORRECTED: "gets half of what the network changed",
    KEPT: "stays as it is: no gain is expected, or it might lose",
    TOO_LARGE: "damaged, but larger than this network and not expected to gain: a larger one may serve it",
    TOO_SMALL: "smaller than --min-face",
    OVER_THE_CAP: "more faces than --max-faces in one picture",
    FAILED: "its landmarks span no face",
    NOT_JUDGED: "no judge knows this method's networks: every face would be replaced",
    NONE_FOUND: "no face was found in the picture",
    REJECTED: "the picture cannot be read or decoded",
}
_PLOTS = (
    ("side", "Size of the face, px"),
    ("severity", "Severity, 0 none to 1 worst"),
    ("blur", "Blur, sigma in px at 128 px"),
    ("noise", "Noise, grey levels"),
    ("compression", "Compression, (100 - JPEG quality) / 100"),
    ("grain", "Grain of the flat parts, grey levels"),
)


def render_assessment(
    record: Mapping[str, Any],
    examples: Mapping[str, Sequence[Example]],
    shown: Mapping[str, Sequence[Uint8Image | None]],
) -> str:
    """The page as self-contained HTML of a few MB at most."""
    page = template("assessment.html.j2").render(
        record=record,
        outcomes=list(_outcomes(record)),
        plots=[(title, list(_bars(record["histograms"][name]))) for name, title in _PLOTS],
        examples=[
            (outcome, MEANINGS[outcome], [_tile(*pair) for pair in zip(found, shown[outcome], strict=True)])
            for outcome, found in examples.items()
        ],
        arguments=record["arguments"] | {"input": record["input"], "judge": record["judge_sha256"] or "none"},
    )
    return printable(page)


def _outcomes(record: Mapping[str, Any]) -> Iterator[tuple[str, str, int, int | None]]:
    for outcome, meaning in MEANINGS.items():
        pictures, faces = record["outcomes"].get(outcome, 0), record["face_outcomes"].get(outcome)
        if pictures or faces:
            yield outcome, meaning, pictures, faces


def _bars(histogram: Mapping[str, Sequence[float]]) -> Iterator[tuple[str, int, float]]:
    """Label, count and share of the highest of each bin."""
    edges, counts = histogram["from"], [int(count) for count in histogram["count"]]
    top = max(*counts, 1)
    used = max((place for place, count in enumerate(counts) if count), default=0)
    for place in range(used + 1):
        upper = f" to {edges[place + 1]:g}" if place + 1 < len(edges) else " and more"
        yield f"{edges[place]:g}{upper}", counts[place], counts[place] / top


def _tile(example: Example, pixels: Uint8Image | None) -> dict[str, Any]:
    facts = example.facts
    numbers = (("gain", ".2f"), ("harm", ".2f"), ("blur", ".1f"), ("noise", ".1f"), ("severity", ".2f"))
    caption = [f"{name} {facts[name]:{form}}" for name, form in numbers if facts.get(name) is not None]
    side = [f"{facts['side']:.0f} px"] if facts.get("side") is not None else []
    return {
        "id": example.id,
        "caption": " · ".join([*side, *caption]) or plain(facts.get("reason")),
        **_uri(example, pixels),
    }


def _uri(example: Example, pixels: Uint8Image | None) -> dict[str, Any]:
    if pixels is None:
        return {"src": None}
    seen = _middle(pixels) if example.face is not None else _small(pixels)
    Image.fromarray(seen).save(buffer := io.BytesIO(), "WEBP", quality=90, method=2)
    height, width = seen.shape[:2]
    return {"src": "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode(), "size": (width, height)}


def _middle(face: Uint8Image) -> Uint8Image:
    cut = max(0, (len(face) - SHOWN_SIDE) // 2)
    return np.ascontiguousarray(face[cut : len(face) - cut, cut : len(face) - cut])


def _small(picture: Uint8Image) -> Uint8Image:
    scale = min(1.0, PICTURE_SIDE / max(picture.shape[:2]))
    size = tuple(max(1, round(scale * n)) for n in picture.shape[1::-1])
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
