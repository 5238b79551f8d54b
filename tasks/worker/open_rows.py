"""Rows being restored: the decoded image, its faces, and the result of each face."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from bfr_models.errors import RowError
from bfr_models.faces.types import Matrix
from bfr_models.pixels import Uint8Image, as_grey, face_tensor, resize, to_uint8
from tasks.images.codec import DecodedImage, decode
from tasks.images.masks import InpaintMask, holes_of
from tasks.runs.outcomes import CHANGED, RESTORED, outcome_word
from tasks.scoring.scorer import ScoredFace
from tasks.scoring.statistics import LOWER_IS_BETTER
from tasks.worker.decide import Decision
from tasks.worker.read_shard import Row, ShardInput
from tasks.worker.upscaling import Enlargement


@dataclass
class Face:
    """One face of a row. Apart from its pixels, the method gets its `id`, `seed` and `place`."""

    id: str
    seed: int
    place: int  # of its row in the row's file
    box: tuple[float, float, float, float]  # x0, y0, x1, y1 in the image
    landmarks: list[float] | None = None  # x, y, x, y... in the image
    score: float | None = None  # the detector's
    side: float | None = None  # px of the image; None if that is not known
    matrix: Matrix | None = None  # image -> crop; None if the whole image is the face
    outcome: str | None = None  # None: not restored yet
    scored: ScoredFace | None = None  # once the method has restored it
    decision: Decision | None = None  # what has become of it then
    resized_back: Uint8Image | None = None  # the restored face at the image's size, where a run writes that
    sharpness_input: float | None = None
    error: RowError | None = None  # why the method failed on it

    def fail(self, error: RowError) -> None:
        self.error, self.outcome = error, f"failed: {error}"

    def take(self, decision: Decision, scored: ScoredFace) -> None:
        """Records what becomes of it. A face that lost its identity is kept, whatever it was worth."""
        self.decision, self.scored = decision, scored
        self.outcome = decision.outcome if scored.outcome == RESTORED else scored.outcome

    @property
    def is_changed(self) -> bool:
        """Whether it does not keep the input's pixels."""
        return self.outcome is not None and outcome_word(self.outcome) in CHANGED

    def to_json(self) -> dict[str, Any]:
        """An entry of the column `faces`."""
        verdict = self.decision.verdict if self.decision else None
        return {
            "box": list(self.box),
            "landmarks": self.landmarks,
            "score": self.score,
            "outcome": self.outcome,
            "identity_similarity": self.scored.identity_similarity if self.scored else None,
            "lpips": self.scored.lpips if self.scored else None,
            "sharpness": self.scored.sharpness if self.scored else None,
            "side": self.side,
            "sharpness_input": self.sharpness_input,
            "gain": verdict.gain if verdict else None,
            "gain_spread": verdict.spread if verdict else None,
            "harm": verdict.harm if verdict else None,
        }


@dataclass
class OpenRow:
    """A row that decoded, until its result is encoded."""

    row: Row
    image: DecodedImage
    gt: Uint8Image | None = None  # of a row that is one face, at the method's size
    mask: InpaintMask | None = None  # at the image's own size
    faces: list[Face] = field(default_factory=list)
    enlargement: Enlargement = field(default_factory=Enlargement)
    seconds: float = 0.0  # on the accelerator
    error: RowError | None = None  # of the image as a whole

    @property
    def todo(self) -> Iterator[Face]:
        """The faces that are still to be restored."""
        return (face for face in self.faces if face.outcome is None)

    @property
    def is_done(self) -> bool:
        return next(self.todo, None) is None

    @property
    def scored(self) -> list[ScoredFace]:
        return [face.scored for face in self.faces if face.scored]

    @property
    def failure(self) -> RowError | None:
        """Why the row is rejected, if it is: an error of the image, or the method failed on every face it was given."""
        errors = [face.error for face in self.faces if face.error]
        return self.error or (errors[0] if errors and not self.scored else None)

    def worst(self, metric: str) -> float | None:
        """The worst score among its faces; None if no face has one."""
        found: Iterable[float | None] = (getattr(scored, metric) for scored in self.scored)
        values = [value for value in found if value is not None]
        return (max if metric in LOWER_IS_BETTER else min)(values, default=None)


def open_row(source: ShardInput, row: Row, size: int) -> OpenRow:
    """Decodes a row, and resizes its ground truth to `size` px. RowError if an image does not decode."""
    image = decode(source.image_bytes(row))
    return OpenRow(row, image, _gt(source, row, size), _mask(source, row, image))


def _gt(source: ShardInput, row: Row, size: int) -> Uint8Image | None:
    try:
        gt = source.gt_bytes(row)
        return None if gt is None else to_uint8(face_tensor(decode(gt).pixels, size))
    except RowError as error:
        raise RowError("bad_gt", f"the ground truth does not decode: {error}") from None


def _mask(source: ShardInput, row: Row, image: DecodedImage) -> InpaintMask | None:
    if source.columns.mask is None:
        return None
    try:
        return holes_of(decode(source.mask_bytes(row)).pixels, image.pixels.shape[:2])
    except RowError as error:
        raise RowError("bad_mask", f"expected a mask for the picture, found none that fits: {error}") from None


def as_pixels(restored: Tensor, row: OpenRow, face: Face, resize_back: bool) -> Uint8Image:
    """The pixels of a restored face, (3, size, size) in [-1, 1]. With `resize_back` the face gets those at its image's
    size, too: resized before they are rounded, as in DifFace's code."""
    if resize_back:
        height_width = row.image.pixels.shape[0], row.image.pixels.shape[1]
        face.resized_back = match_greyscale(to_uint8(resize(restored.clamp(-1, 1)[None], height_width)[0]), row.image)
    return match_greyscale(to_uint8(restored), row.image)


def match_greyscale(face: Uint8Image, image: DecodedImage) -> Uint8Image:
    """Makes the face grey if its image is: a grey image is written as grey, and scores are taken on what is written."""
    return as_grey(face) if image.grey else face
