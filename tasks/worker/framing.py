"""How faces come out of pictures and go back: each picture is one face, perhaps
with holes, or a photo with any number of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot
from typing import Protocol

import torch
from torch import Tensor

from bfr_models.errors import RowError
from bfr_models.faces.align import similarity, warp
from bfr_models.faces.paste import paste
from bfr_models.faces.template import at_size
from bfr_models.faces.types import DetectedFace, Detector
from bfr_models.pixels import Uint8Image, resize, to_tensor, to_uint8
from bfr_models.rng import derive_seed
from tasks.config.resolve import PhotoSettings
from tasks.images.masks import fill, holes_at
from tasks.scoring.face_vectors import RESTORED
from tasks.worker.batches import call_or_bisect
from tasks.worker.open_rows import Face, OpenRow

TOO_SMALL, OVER_THE_CAP = "skipped: too small", "skipped: over the cap"


@dataclass(frozen=True)
class Crop:
    """What the method sees of a face, at its size."""

    lq: Tensor  # (3, size, size) in [-1, 1], and a little beyond where it was resized
    mask: Tensor | None = None  # (1, size, size): 1 in the holes

    @property
    def pixels(self) -> Uint8Image:
        return to_uint8(self.lq)


class Framing(Protocol):
    def find(self, rows: Sequence[OpenRow]) -> None:
        """Gives each row its faces, the most prominent first, or an error."""
        ...

    def crop(self, row: OpenRow, face: Face) -> Crop: ...

    def compose(self, row: OpenRow) -> Uint8Image:
        """The picture that is written, once all faces of a row are through."""
        ...


class WholePictures:
    """Each picture is one aligned face, and so is what is written."""

    def __init__(self, size: int) -> None:
        self._size = size

    def find(self, rows: Sequence[OpenRow]) -> None:
        for row in rows:
            height, width = row.picture.pixels.shape[:2]
            row.faces = [Face(row.row.id, row.row.seed, (0.0, 0.0, float(width), float(height)))]

    def crop(self, row: OpenRow, face: Face) -> Crop:
        return Crop(resize(to_tensor(row.picture.pixels)[None], self._size)[0])

    def compose(self, row: OpenRow) -> Uint8Image:
        return row.scored[0].face


class HolesInPictures(WholePictures):
    """Each picture is one aligned face with holes; what is written is the picture itself with its holes filled."""

    def crop(self, row: OpenRow, face: Face) -> Crop:
        assert row.holes is not None, "a run without masks has other framing"
        mask = torch.from_numpy(holes_at(row.holes, (self._size, self._size)))
        return Crop(super().crop(row, face).lq, mask[None].float())

    def compose(self, row: OpenRow) -> Uint8Image:
        assert row.holes is not None, "a run without masks has other framing"
        scored, known = row.scored[0], row.picture.pixels
        return fill(known, row.holes, scored.face) if scored.outcome == RESTORED else known


class FacesInPhotos:
    """Faces are found and aligned; what is written is the photo with the restored ones in their places."""

    def __init__(self, size: int, detector: Detector, settings: PhotoSettings) -> None:
        self._size, self._detector, self._settings = size, detector, settings
        self._template = at_size(detector.template, size)

    def find(self, rows: Sequence[OpenRow]) -> None:
        photos = [row.picture.pixels for row in rows]
        for row, found in zip(rows, call_or_bisect(self._detector.detect_all, photos, "detector_failed"), strict=True):
            if isinstance(found, RowError):
                row.error = found
            elif not found and self._settings.reject_no_face:
                row.error = RowError("no_face", f"expected a face, {self._settings.detector.name} found none")
            else:
                row.faces = [self._face(row, number, face) for number, face in enumerate(found)]
                for face in list(row.todo)[self._settings.max_faces :]:
                    face.outcome = OVER_THE_CAP

    def crop(self, row: OpenRow, face: Face) -> Crop:
        assert face.matrix is not None, "only aligned faces are restored"
        return Crop(to_tensor(warp(row.picture.pixels, face.matrix, self._size)))

    def compose(self, row: OpenRow) -> Uint8Image:
        restored = [
            (face.scored.face, face.matrix)
            for face in row.faces
            if face.scored and face.matrix is not None and face.outcome == RESTORED
        ]
        return paste(row.picture.pixels, restored)

    def _face(self, row: OpenRow, number: int, found: DetectedFace) -> Face:
        face = Face(
            id=f"{row.row.id}#face{number}",
            seed=derive_seed(row.row.seed, f"face {number}"),
            box=found.box,
            landmarks=found.landmarks.flatten().tolist(),
            score=found.score,
        )
        try:
            face.matrix = similarity(found.landmarks, self._template)
        except RowError as error:
            face.outcome = f"failed: {error}"
            return face
        side = self._size / hypot(face.matrix[0, 0], face.matrix[1, 0])  # of the crop, in the photo's pixels
        if side < self._settings.min_face:
            face.outcome = TOO_SMALL
        return face
