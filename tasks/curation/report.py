"""The page of a curated dataset: how many rows each step left, statistics before and after, and images."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.datasets.image_column import embedded_bytes
from tasks.report.gallery import caption
from tasks.report.page import printable, template
from tasks.report.pictures import image_uri
from tasks.runs.finished_run import FinishedRun, Rows
from tasks.scoring.statistics import BIN_WIDTHS

Pair = tuple[int, int, float]
"""A dropped row, the row that is kept in its place, and their cosine."""

MAX_PAIRS, MAX_KEPT = 12, 24
IMAGE_BYTES = 60_000  # of one image: all of them take at most 4 MB as base64
_LABELS = {
    "identity_similarity": "identity to input",
    "identity_similarity_gt": "identity to gt",
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "lpips": "LPIPS",
}


def duplicate_examples(dropped: Rows, kept: Rows, similarity: NDArray[np.float32]) -> list[Pair]:
    """The pairs of lowest and of highest similarity, lowest first: these show whether the threshold is right."""
    order = np.argsort(similarity, kind="stable")
    if len(order) > MAX_PAIRS:
        order = np.concatenate([order[: MAX_PAIRS // 2], order[-MAX_PAIRS // 2 :]])
    return [(int(dropped[i]), int(kept[i]), float(similarity[i])) for i in order]


def render_curation(run: FinishedRun, record: Mapping[str, Any], rows: Rows, pairs: Sequence[Pair]) -> str:
    """The page as self-contained HTML of a few MB at most."""
    shown = rows[np.unique(np.linspace(0, len(rows) - 1, MAX_KEPT).astype(np.int64))]
    tiles = dict(_tiles(run, np.unique([*shown, *(row for pair in pairs for row in pair[:2])]).astype(np.int64)))
    page = template("curation.html.j2").render(
        record=record,
        arguments={name: value for name, value in record["arguments"].items() if value not in (None, False)},
        measures=_measures(record["statistics_of_run"], record["statistics"]),
        pairs=[(tiles[a], tiles[b], similarity) for a, b, similarity in pairs],
        kept=[tiles[row] for row in shown.tolist()],
        to_json=json.dumps,
    )
    return printable(page)


def _measures(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    names = [
        *(name for name in BIN_WIDTHS if name in before),
        *(name for name in before if name.startswith(("fid", "fd_"))),
    ]
    for name in names:
        sides = [dict(statistics.get(name) or {}) for statistics in (before, after)]
        values = [side.get("mean", side.get("value")) for side in sides]
        whys = [side.get("why") or side.get("reference") for side in sides]
        yield {"label": _LABELS.get(name, name), "values": values, "notes": whys, "n": [s.get("n") for s in sides]}


def _tiles(run: FinishedRun, rows: Rows) -> Iterator[tuple[int, dict[str, Any]]]:
    """Row -> its id, scores and image."""
    scores = ["id", "identity_similarity", "identity_similarity_gt", "psnr"]
    for here, table in run.read(rows, [*scores, "restored"]):
        for row, values in zip(here.tolist(), table.to_pylist(), strict=True):
            yield row, {"id": values["id"], "caption": caption(values), **_image(embedded_bytes(values["restored"]))}


def _image(data: bytes | None) -> dict[str, Any]:
    if data is None:
        return {"src": None}
    try:
        picture = image_uri(data, IMAGE_BYTES)
        return {"src": picture.src, "size": picture.size}
    except Exception:  # Pillow can raise anything, and no image may cost the page
        return {"src": None}
