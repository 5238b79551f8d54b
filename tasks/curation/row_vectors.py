"""The vectors by which near-duplicates are found: one per row, from the run's features or from its images."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bfr_models.errors import RowError
from bfr_models.pixels import Uint8Image
from tasks.curation.looks import PERCEPTUAL
from tasks.curation.near_duplicates import Vectors
from tasks.datasets.image_column import embedded_bytes
from tasks.images.codec import decode
from tasks.runs.finished_run import FinishedRun, Rows
from tasks.scoring.face_vectors import FaceVectors

_SIDE, _KEPT = 32, 8  # px of the reduced image; frequencies kept along each axis
_WIDE = 512  # dimensions above which vectors are float16: 200,000 of Inception's (2,048) take 0.8 GB


@dataclass(frozen=True, eq=False)
class RowVectors:
    """`vectors` (m, d) of length 1, for the rows `rows` (m,); rows without a vector are left out."""

    rows: Rows
    vectors: Vectors
    source: dict[str, Any]


def row_vectors(run: FinishedRun, rows: Rows, look: str) -> RowVectors:
    """The vectors of some rows; for several faces, the mean of their directions."""
    if look == "perceptual":
        return _perceptual_vectors(run, rows)
    wanted = np.zeros(run.table.num_rows, bool)
    wanted[rows] = True
    slots = np.cumsum(wanted) - 1
    face_vectors = FaceVectors(run)
    sums: Vectors | None = None
    for file in run.files:
        owners, vectors, _ = face_vectors.read(file, look)
        own = wanted[owners]
        if not own.any():
            continue
        if sums is None:
            shape = (len(rows), vectors.shape[1])
            sums = np.zeros(shape, np.float16) if shape[1] > _WIDE else np.zeros(shape, np.float32)
        units = _units(vectors[own].astype(np.float32, copy=False))
        places, first = np.unique(slots[owners[own]], return_index=True)
        sums[places] = _units(np.add.reduceat(units, first))
    if sums is None:
        sums = np.zeros((len(rows), 1), np.float32)
    source = run.record["recogniser"] if look == "embedding" else run.record["measures"]["inception"]
    return _without_zeros(rows, sums, {"look": look, **(source or {})})


def perceptual_vector(pixels: Uint8Image) -> NDArray[np.float32]:
    """(63,) float32 of length 1, or 0 for a flat image, after pHash.

    The (H, W, 3) image is reduced to 32 x 32 grey levels; of its cosine transform (DCT-II), the 8 x 8 lowest
    frequencies are taken, without the mean.
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey.astype(np.float32), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    low = np.asarray(cv2.dct(small), np.float32)[:_KEPT, :_KEPT].ravel()[1:]
    # Below 1e-2 is only rounding, which would give flat images a random direction.
    return _units(np.where(np.abs(low) < 1e-2, 0, low)[None].astype(np.float32))[0]


def _perceptual_vectors(run: FinishedRun, rows: Rows) -> RowVectors:
    found = np.zeros((len(rows), _KEPT**2 - 1), np.float32)
    with ThreadPoolExecutor() as threads:
        for start, images in _encoded_images(run, rows):
            for place, vector in enumerate(threads.map(_vector, images), start):
                found[place] = 0 if vector is None else vector
    return _without_zeros(rows, found, {"look": "perceptual", "name": PERCEPTUAL})


def _encoded_images(run: FinishedRun, rows: Rows) -> Iterator[tuple[int, list[bytes | None]]]:
    """(position of the first, images) of some rows at a time."""
    start = 0
    for here, table in run.read(rows, ["restored"]):
        yield start, [embedded_bytes(cell) for cell in table["restored"].to_pylist()]
        start += len(here)


def _vector(data: bytes | None) -> NDArray[np.float32] | None:
    try:
        return perceptual_vector(decode(data).pixels)
    except RowError:
        return None


def _units(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


def _without_zeros(rows: Rows, vectors: Vectors, source: dict[str, Any]) -> RowVectors:
    """The rows that have a vector: 0 stands for none."""
    there = vectors.any(axis=1)
    return RowVectors(rows, vectors, source) if there.all() else RowVectors(rows[there], vectors[there], source)
