"""What a picture is exported as: its own bytes, or its own format with the restored pixels in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np

from bfr_models.errors import RowError
from bfr_models.faces.align import similarity, transform_points
from bfr_models.faces.template import DLIB_5, FFHQ_5, TEMPLATE_SIDE
from tasks.export.canvas import Canvas, Mask, with_restored
from tasks.export.encode import takes_pixels, write_like
from tasks.export.notes import Notes
from tasks.export.pictures import Picture
from tasks.export.png import write_png
from tasks.export.progress import CHANGED, REJECTED, UNCHANGED
from tasks.export.rows import ExportRow, ExportRun
from tasks.export.sidecar import event_of
from tasks.export.tiff import write_tiff
from tasks.export.xmp import Event
from tasks.images.codec import decode, encode
from tasks.images.kinds import kind_of
from tasks.images.readers import size
from tasks.runs.outcomes import CHANGED as CHANGED_FACES
from tasks.runs.outcomes import outcome_word


@dataclass
class Made:
    """A picture, ready to be written."""

    state: str
    data: bytes | None  # None: there is nothing to write
    beside: dict[str, bytes] = field(default_factory=dict)  # endings of names -> files to put beside it
    notes: Notes = field(default_factory=Notes)


def make(run: ExportRun, picture: Picture) -> Made:
    """RowError `missing` for a picture whose own bytes are needed and gone."""
    notes = Notes()
    if all(row.restored is None for row in picture.rows):
        if picture.lost:
            notes.add(picture.lost)
        return Made(REJECTED, None if picture.lost else _whole(picture, notes), notes=notes)
    if picture.lost:
        raise RowError("missing", picture.lost)
    canvases = _canvases(run, picture, notes)
    if not canvases:
        return Made(UNCHANGED, _whole(picture, notes), notes=notes)
    event = event_of(run, picture)
    try:
        if takes_pixels(picture.files[0]):
            return Made(CHANGED, write_like(picture.files, canvases, event, notes), notes=notes)
        notes.add("its format cannot take the new pixels: it stays as it was, and they are beside it as PNG")
    except (RowError, OSError, ValueError) as error:  # the last two are Pillow's
        notes.add(f"the new pixels cannot be put into it ({error}): it stays as it was, and they are beside it as PNG")
    return Made(CHANGED, _whole(picture, notes), _beside(run, picture, canvases, event, notes), notes)


def _whole(picture: Picture, notes: Notes) -> bytes:
    """The picture as it was."""
    files = picture.files
    if len(files) == 1 or kind_of(files[0]) == "PDF":  # a PDF's first row has all of it
        return files[0]
    notes.add("it was packed page by page: its pages are as they were, but the file is put together anew")
    return write_tiff(files, {}, Event("", "", ""), notes)


def _beside(run: ExportRun, picture: Picture, numbers: Iterable[int], event: Event, notes: Notes) -> dict[str, bytes]:
    one = len(picture.rows) == 1
    return {
        ".png" if one else f".page{number + 1}.png": _as_png(run, picture.rows[number], event, notes)
        for number in numbers
    }


def _as_png(run: ExportRun, row: ExportRow, event: Event, notes: Notes) -> bytes:
    """A page with its new pixels as a PNG, upright, with the profile and all else that its own file has beside them."""
    before = decode(row.original)
    original = encode(before.pixels, "png", like=before)
    canvas = _canvas(run, replace(row, original=original), notes)
    assert canvas is not None, "its pixels are those that were compared before"
    return write_png(original, canvas, event, notes)


def _canvases(run: ExportRun, picture: Picture, notes: Notes) -> dict[int, Canvas]:
    """The new pixels of each page that has some."""
    found = ((number, _canvas(run, row, notes)) for number, row in enumerate(picture.rows))
    return {number: canvas for number, canvas in found if canvas is not None}


def _canvas(run: ExportRun, row: ExportRow, notes: Notes) -> Canvas | None:
    """The new pixels of a page; None if it has none."""
    if row.restored is None or row.original is None or _is_untouched(run, row):
        return None
    if row.refused and not _has_the_size_of_before(run, row):
        raise RowError(
            "too_large",
            "some of its faces are to stay and others are not, and the run has written it larger: the input's "
            "pixels cannot be put back; decide the same about all of its faces, or restore it without --upscale",
        )
    is_exact = run.asked("format") == "png" and not row.refused
    region = None if is_exact else _pasted(row, run.asked("detector"), notes)
    return with_restored(row.original, row.restored, region, notes)


def _is_untouched(run: ExportRun, row: ExportRow) -> bool:
    """Whether nothing in an image was changed, by what is known of its faces and its size."""
    if any(map(_is_changed, row.values["faces"])):
        return False
    return run.only_approved or bool(row.refused) or _has_the_size_of_before(run, row)


def _has_the_size_of_before(run: ExportRun, row: ExportRow) -> bool:
    """Whether an image was written as large as it was, by what is known of it."""
    if run.asked("input") != "photos":
        return True
    original = row.original or b""
    sides = size(kind_of(original) or "", original)  # as stored, which may be turned
    return sorted(sides) == sorted((row.values["width"], row.values["height"]))


def _is_changed(face: dict[str, Any]) -> bool:
    return outcome_word(face["outcome"]) in CHANGED_FACES


def _pasted(row: ExportRow, detector: str, notes: Notes) -> Callable[[tuple[int, int]], Mask] | None:
    """Where the faces are that were pasted into a photo and stay there; None: anywhere."""
    faces = [face for face in row.values["faces"] if _is_changed(face)]
    if not faces or any(face["landmarks"] is None for face in faces):
        return None

    def covered(shape: tuple[int, int], some: Iterable[dict[str, Any]]) -> Mask:
        canvas = np.zeros(shape, np.uint8)
        for face in some:
            cv2.fillConvexPoly(canvas, np.rint(_square(face, detector)).astype(np.int32), 1)
        return canvas.astype(bool)

    def mask(shape: tuple[int, int]) -> Mask:
        stays, goes = covered(shape, faces), covered(shape, row.refused)
        if (stays & goes).any():
            notes.add("a face that stays overlaps one that was refused: where they do, it has the input's pixels")
        return stays & ~goes

    return mask


def _square(face: dict[str, Any], detector: str) -> Any:
    """(4, 2) corners of a face's crop in its photo."""
    template = DLIB_5 if detector == "dlib" else FFHQ_5
    to_crop = similarity(np.array(face["landmarks"], np.float64).reshape(-1, 2), template)
    side = TEMPLATE_SIDE - 1
    corners = np.array([(0, 0), (side, 0), (side, side), (0, side)], np.float64)
    return transform_points(corners, np.asarray(cv2.invertAffineTransform(to_crop), np.float64))
