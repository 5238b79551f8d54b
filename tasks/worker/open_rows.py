"""Rows under restoration: a picture, its faces on their way through the method, and what came of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bfr_models.errors import RowError
from bfr_models.faces.types import Matrix
from bfr_models.pixels import Uint8Image, face_tensor, to_uint8
from tasks.images.codec import DecodedImage, decode
from tasks.images.masks import InpaintMask, holes_of
from tasks.scoring.scorer import ScoredFace
from tasks.scoring.statistics import LOWER_IS_BETTER
from tasks.worker.read_shard import Row, ShardInput


@dataclass
class Face:
    """One face of a row. `id` and `seed` are what the method gets beside its pixels."""

    id: str
    seed: int
    box: tuple[float, float, float, float]  # x0, y0, x1, y1 in the picture
    landmarks: list[float] | None = None  # x, y, x, y... in the picture
    score: float | None = None  # the detector's
    matrix: Matrix | None = None  # picture -> crop; None where the whole picture is the face
    outcome: str | None = None  # None: not decided yet
    scored: ScoredFace | None = None  # once it is through the method
    error: RowError | None = None  # why the method gave nothing

    def take(self, result: ScoredFace | RowError) -> None:
        """Notes what the method made of it."""
        if isinstance(result, RowError):
            self.error, self.outcome = result, f"failed: {result}"
        else:
            self.scored, self.outcome = result, result.outcome

    def to_json(self) -> dict[str, Any]:
        """An entry of the column `faces`."""
        return {
            "box": list(self.box),
            "landmarks": self.landmarks,
            "score": self.score,
            "outcome": self.outcome,
            "identity_similarity": self.scored.identity_similarity if self.scored else None,
            "lpips": self.scored.lpips if self.scored else None,
            "sharpness": self.scored.sharpness if self.scored else None,
        }


@dataclass
class OpenRow:
    """A row that decoded, until its result is encoded."""

    row: Row
    picture: DecodedImage
    gt: Uint8Image | None = None  # of a row that is one face, at the method's size
    holes: InpaintMask | None = None  # of the picture, at its own size
    faces: list[Face] = field(default_factory=list)
    seconds: float = 0.0  # of the accelerator
    error: RowError | None = None  # of the picture as a whole

    @property
    def todo(self) -> Iterator[Face]:
        """The faces that the method is to see and has not seen yet."""
        return (face for face in self.faces if face.outcome is None)

    @property
    def is_done(self) -> bool:
        return next(self.todo, None) is None

    @property
    def scored(self) -> list[ScoredFace]:
        return [face.scored for face in self.faces if face.scored]

    @property
    def failure(self) -> RowError | None:
        """Why the row is rejected, if it is: of the faces that the method was given it restored none."""
        errors = [face.error for face in self.faces if face.error]
        return self.error or (errors[0] if errors and not self.scored else None)

    def worst(self, metric: str) -> float | None:
        """The worst score of its faces; None where none has it."""
        found: Iterable[float | None] = (getattr(scored, metric) for scored in self.scored)
        values = [value for value in found if value is not None]
        return (max if metric in LOWER_IS_BETTER else min)(values, default=None)


def open_row(source: ShardInput, row: Row, size: int) -> OpenRow:
    """Decodes a row; its ground truth to `size` px. RowError when it does not decode."""
    picture = decode(source.picture(row))
    return OpenRow(row, picture, _gt(source, row, size), _holes(source, row, picture))


def _gt(source: ShardInput, row: Row, size: int) -> Uint8Image | None:
    try:
        gt = source.gt(row)
        return None if gt is None else to_uint8(face_tensor(decode(gt).pixels, size))
    except RowError as error:
        raise RowError("bad_gt", f"the ground truth does not decode: {error}") from None


def _holes(source: ShardInput, row: Row, picture: DecodedImage) -> InpaintMask | None:
    if source.columns.mask is None:
        return None
    try:
        return holes_of(decode(source.mask(row)).pixels, picture.pixels.shape[:2])
    except RowError as error:
        raise RowError("bad_mask", f"expected a mask for the picture, found none that fits: {error}") from None


def match_greyscale(face: Uint8Image, picture: DecodedImage) -> Uint8Image:
    """A grey picture gives a grey face: scores see what is written."""
    if not picture.grey:
        return face
    luma = np.rint(face @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    return np.repeat(luma[..., None], 3, axis=2)
