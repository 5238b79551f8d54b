"""How faces are taken out of images and put back.

The method knows aligned square faces only. An image is such a face already, or one with holes (inpainting), or a photo
with any number of faces; the rest of the worker does not tell them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import hypot
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from bfr_models.errors import RowError
from bfr_models.faces.align import at_scale, similarity, warp
from bfr_models.faces.paste import paste
from bfr_models.faces.template import at_size
from bfr_models.faces.types import DetectedFace, Detector, Matrix
from bfr_models.pixels import Uint8Image, resize, to_tensor, to_uint8
from bfr_models.rng import derive_seed
from tasks.config.resolve import PhotoSettings
from tasks.images.codec import Format
from tasks.images.masks import fill, holes_at
from tasks.runs.outcomes import RESTORED
from tasks.worker.batches import call_or_bisect
from tasks.worker.decide import JUDGED_SIDE
from tasks.worker.open_rows import Face, OpenRow
from tasks.worker.turned import turned_faces
from tasks.worker.upscaling import Enlarge, Enlargement, choose_enlargement, from_enlarged

BAND_ROWS = 256  # of an image that are composed at once
MIN_SIDE = 8  # px of a crop at the photo's scale
TOO_SMALL, OVER_THE_CAP = "skipped: too small", "skipped: over the cap"


@dataclass(frozen=True)
class Crop:
    """A face as the method sees it, at the method's size."""

    lq: Tensor  # (3, size, size) in [-1, 1]; resizing may overshoot a little
    mask: Tensor | None = None  # (1, size, size): 1 inside the holes
    exact: Uint8Image | None = None  # where it was not resized: the pixels that it was made of

    @property
    def pixels(self) -> Uint8Image:
        return to_uint8(self.lq) if self.exact is None else self.exact


class Framing(Protocol):
    @property
    def is_network(self) -> bool:
        """Whether faces are found by a network, on the accelerator."""
        ...

    def find(self, rows: Sequence[OpenRow]) -> None:
        """Gives each row its faces, the most prominent first, or an error."""
        ...

    def crop(self, row: OpenRow, face: Face) -> Crop: ...

    def native(self, row: OpenRow, face: Face) -> Uint8Image:
        """The face as a square at the image's own scale, but of at most `JUDGED_SIDE` px: what a judge looks at."""
        ...

    def compose(self, row: OpenRow) -> Uint8Image:
        """The image to write, once all faces of a row are done."""
        ...


class WholeImages:
    """Each image is one aligned face; the restored face is written, at the image's own size or at the method's."""

    is_network = False

    def __init__(self, size: int, written: Literal["input", "network"] = "input") -> None:
        self._size, self._written = size, written

    def find(self, rows: Sequence[OpenRow]) -> None:
        for row in rows:
            height, width = row.image.pixels.shape[:2]
            box = (0.0, 0.0, float(width), float(height))
            row.faces = [Face(row.row.id, row.row.seed, row.row.place, box, side=float(max(height, width)))]

    def crop(self, row: OpenRow, face: Face) -> Crop:
        return Crop(resize(to_tensor(row.image.pixels)[None], self._size)[0], exact=self._exact(row))

    def _exact(self, row: OpenRow) -> Uint8Image | None:
        return row.image.pixels if row.image.pixels.shape[:2] == (self._size, self._size) else None

    def native(self, row: OpenRow, face: Face) -> Uint8Image:
        pixels = row.image.pixels
        side = self._size if self._written == "network" else min(max(pixels.shape[:2]), JUDGED_SIDE)
        return pixels if pixels.shape[:2] == (side, side) else to_uint8(resize(to_tensor(pixels)[None], side)[0])

    def compose(self, row: OpenRow) -> Uint8Image:
        face, image = row.faces[0], row.image.pixels
        assert face.scored is not None and face.decision is not None, "only rows whose face is done are composed"
        if self._written == "network":
            return face.scored.face
        pixels, weight = face.decision.pixels, face.decision.weight
        if not face.is_changed or pixels is None:
            return image
        if face.resized_back is not None:
            return face.resized_back
        seen = self._exact(row)
        if np.array_equal(pixels, self.crop(row, face).pixels if seen is None else seen):
            return image  # the method has not changed it, and its resized copy would be worse
        drawn = resize(to_tensor(pixels)[None], (image.shape[0], image.shape[1]))[0]
        composed = np.empty_like(image)
        for first in range(0, len(image), BAND_ROWS):  # floats of all of a large image are many times its own size
            rows = slice(first, first + BAND_ROWS)
            composed[rows] = to_uint8(torch.lerp(to_tensor(image[rows]), drawn[:, rows], weight))
        return composed


class HolesInImages(WholeImages):
    """Each image is one aligned face with holes; the image itself is written, with its holes filled.

    All other pixels are copied from the input, at its own size: what is known stays bit for bit.
    """

    def crop(self, row: OpenRow, face: Face) -> Crop:
        assert row.mask is not None, "only runs with a mask column have this framing"
        mask = torch.from_numpy(holes_at(row.mask, (self._size, self._size)))
        return replace(super().crop(row, face), mask=mask[None].float())

    def compose(self, row: OpenRow) -> Uint8Image:
        assert row.mask is not None, "only runs with a mask column have this framing"
        scored, known = row.scored[0], row.image.pixels
        return fill(known, row.mask, scored.face) if scored.outcome == RESTORED else known


class FacesInPhotos:
    """Faces are found and aligned; the photo is written, with the restored faces pasted into their places.

    A face that is not restored is not pasted either: warping it there and back would blur it. If photos are to be
    enlarged, it is enlarged like the photo around it.
    """

    def __init__(self, size: int, detector: Detector, settings: PhotoSettings, fmt: Format, enlarge: Enlarge) -> None:
        self._size, self._detector, self._settings = size, detector, settings
        self._format, self._enlarge = fmt, enlarge
        self._template = at_size(detector.template, size)
        self.is_network = settings.detector.weights is not None

    def find(self, rows: Sequence[OpenRow]) -> None:
        photos = [row.image.pixels for row in rows]
        for row, found in zip(rows, call_or_bisect(self._detector.detect_all, photos, "detector_failed"), strict=True):
            if isinstance(found, RowError):
                row.error = found
                continue
            faces = found or self._seen_at_last(row) or self._turned(row)
            if not faces and self._settings.reject_no_face:
                row.error = RowError("no_face", f"expected a face, {self._settings.detector.name} found none")
            else:
                row.faces = [self._face(row, number, face) for number, face in enumerate(faces)]
                for face in list(row.todo)[self._settings.max_faces :]:
                    face.outcome = OVER_THE_CAP
                row.enlargement = self._enlargement(row)

    def crop(self, row: OpenRow, face: Face) -> Crop:
        assert face.matrix is not None, "only aligned faces are restored"
        pixels = warp(row.image.pixels, face.matrix, self._size)
        return Crop(to_tensor(pixels), exact=pixels)

    def native(self, row: OpenRow, face: Face) -> Uint8Image:
        assert face.matrix is not None and face.side is not None, "only aligned faces are restored"
        side = max(MIN_SIDE, min(round(face.side), JUDGED_SIDE))
        return warp(row.image.pixels, at_scale(face.matrix, side / self._size), side)

    def compose(self, row: OpenRow) -> Uint8Image:
        changed = [face for face in row.faces if face.is_changed]
        if self._settings.upscale == "auto" and not changed:
            row.enlargement = Enlargement()  # nothing has more detail than the photo
        factor = row.enlargement.factor
        photo = self._enlarge(row.image.pixels, factor)
        return paste(photo, [self._pasted(face, factor) for face in changed])

    def _pasted(self, face: Face, factor: int) -> tuple[Uint8Image, Matrix, float]:
        """The pixels of a face, the matrix enlarged photo -> those, and their weight."""
        assert face.decision is not None and face.decision.pixels is not None and face.matrix is not None
        drawn = face.decision.pixels
        return drawn, from_enlarged(at_scale(face.matrix, len(drawn) / self._size), factor), face.decision.weight

    def _enlargement(self, row: OpenRow) -> Enlargement:
        sides = [face.side for face in row.todo if face.side is not None]
        return choose_enlargement(self._settings.upscale, sides, self._size, row.image, self._format)

    def _seen_at_last(self, row: OpenRow) -> list[DetectedFace]:
        (faces,) = call_or_bisect(self._detector.look_again, [row.image.pixels], "detector_failed")
        return [] if isinstance(faces, RowError) else faces

    def _turned(self, row: OpenRow) -> list[DetectedFace]:
        faces, degrees = turned_faces(self._detector, row.image.pixels)
        if degrees:
            row.image.beside.notes.append(f"faces turned by {degrees} degrees to the right, restored as they lie")
        return faces

    def _face(self, row: OpenRow, number: int, found: DetectedFace) -> Face:
        face = Face(
            id=f"{row.row.id}#face{number}",
            seed=derive_seed(row.row.seed, f"face {number}"),
            place=row.row.place,
            box=found.box,
            landmarks=found.landmarks.flatten().tolist(),
            score=found.score,
        )
        try:
            face.matrix = similarity(found.landmarks, self._template)
        except RowError as error:
            face.outcome = f"failed: {error}"
            return face
        face.side = self._size / hypot(face.matrix[0, 0], face.matrix[1, 0])
        if face.side < self._settings.min_face:
            face.outcome = TOO_SMALL
        return face
