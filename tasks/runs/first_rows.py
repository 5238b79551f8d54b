"""What a dataset holds, aligned faces or photos, by a look at its first rows.

The rule, over the first pictures that decode:

    aligned faces    all are square (within 5 %), and dlib finds a face where aligned faces have theirs in at least one
                     of them, or it finds no face in any and all have one size, as aligned faces do
    photos           all else
    plainly photos   none is square, or they have several sizes, at least two have faces, and none of those is where an
                     aligned face has it

Only what is plainly photos is refused if `--input faces` is asked for: a face may be too damaged to be found.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from itertools import islice
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from bfr_models.errors import RowError
from bfr_models.faces.dlib_files import dlib_is_here
from bfr_models.faces.template import ALIGNED_BOX, TEMPLATE_SIDE
from tasks.datasets.fetch_images import Fetcher
from tasks.datasets.image_column import addresses, find_image_column, image_bytes
from tasks.datasets.row_groups import DAMAGE, is_damage, value_at
from tasks.images.glimpse import Glimpse, glimpse
from tasks.runs.source import open_source

Kind = Literal["faces", "photos"]

LOOK_ROWS, TRIED_ROWS = 4, 16  # pictures to look at, and rows to read for them at most
SQUARE = 0.05  # by how much of the longer side a square may be off
SIDE = 384  # px of the view in which faces are looked for
_OVERLAP = 0.5  # intersection over union of a box with that of an aligned face
_ONE_AT_A_TIME = threading.Lock()  # the detector keeps state while it runs


class FirstRows:
    """The first pictures of a dataset: their sizes, and where dlib finds faces in them."""

    def __init__(self, pictures: Sequence[Glimpse]) -> None:
        self._square = [_is_square(picture) for picture in pictures]
        self._sizes = {(picture.width, picture.height) for picture in pictures}
        boxes = _face_boxes(pictures) if any(self._square) and dlib_is_here() else [[] for _ in pictures]
        self._with_face = sum(bool(found) for found in boxes)
        self._in_place = sum(
            any(_is_in_place(box, max(view.shape)) for box in found)
            for found, view in ((found, picture.view) for found, picture in zip(boxes, pictures, strict=True))
            if view is not None
        )

    @property
    def kind(self) -> Kind:
        """What the rows are taken for."""
        if not self._square:
            return "faces"  # nothing decodes: the rows are rejected either way
        looks_aligned = self._in_place or (not self._with_face and len(self._sizes) == 1)
        return "faces" if all(self._square) and looks_aligned else "photos"

    @property
    def is_plainly_photos(self) -> bool:
        none_square = bool(self._square) and not any(self._square)
        return none_square or (self._with_face >= 2 and not self._in_place and len(self._sizes) > 1)

    def __str__(self) -> str:
        n, sizes = len(self._square), sorted(self._sizes)
        shown = ", ".join(f"{width} x {height}" for width, height in sizes[:3]) + (", ..." if len(sizes) > 3 else "")
        if not any(self._square):
            return (
                f"the first {n} pictures are not square ({shown} px)" if n else "no picture decodes in the first rows"
            )
        return (
            f"of the first {n} pictures ({shown} px) {sum(self._square)} are square; faces are found in "
            f"{self._with_face}, at the place of an aligned face in {self._in_place}"
        )


def look(source: str, column: str) -> FirstRows:
    """Reads and looks at the first rows of a dataset. UsageError if there is no such dataset or column."""
    return FirstRows(list(islice(_glimpses(source, column), LOOK_ROWS)))


def _glimpses(source: str, column: str) -> Iterator[Glimpse]:
    for cell, fetch in islice(_cells(source, column), TRIED_ROWS):
        with suppress(RowError):  # an address that cannot be fetched: said where the row is restored
            if (seen := glimpse(image_bytes(cell, fetch), SIDE)) is not None:
                yield seen


def _cells(source: str, column: str) -> Iterator[tuple[Any, Fetcher]]:
    for store, file in open_source(source):
        with store.open_input(file.path) as opened:
            try:
                # Not buffered ahead: a row group of scans may have gigabytes, and a few rows are wanted.
                parquet = pq.ParquetFile(opened, pre_buffer=False, buffer_size=2**20)
                find_image_column(parquet.schema_arrow, column)
                for batch in parquet.iter_batches(LOOK_ROWS, columns=[column]):
                    cells = pa.Table.from_batches([batch])[column]
                    fetch = Fetcher(store.url(), addresses(cells))
                    yield from ((value_at(cells, row), fetch) for row in range(len(cells)))
            except DAMAGE as error:
                if not is_damage(error):
                    raise


def _is_square(picture: Glimpse) -> bool:
    longer = max(picture.width, picture.height)
    return picture.view is not None and longer - min(picture.width, picture.height) <= SQUARE * longer


def _face_boxes(pictures: Sequence[Glimpse]) -> list[list[tuple[float, ...]]]:
    """x0, y0, x1, y1 of the faces in each view, in its pixels."""
    with _ONE_AT_A_TIME:
        found = [[] if picture.view is None else _detector()(picture.view) for picture in pictures]
    return [[(box.left(), box.top(), box.right() + 1, box.bottom() + 1) for box in boxes] for boxes in found]


@cache
def _detector() -> Any:
    import dlib

    return dlib.get_frontal_face_detector()


def _is_in_place(box: tuple[float, ...], side: int) -> bool:
    """Whether a face's box is where an aligned face of `side` px has it."""
    x0, y0, x1 = (edge * side / TEMPLATE_SIDE for edge in ALIGNED_BOX)
    y1 = y0 + x1 - x0
    wide = max(0.0, min(box[2], x1) - max(box[0], x0))
    high = max(0.0, min(box[3], y1) - max(box[1], y0))
    union = (x1 - x0) * (y1 - y0) + (box[2] - box[0]) * (box[3] - box[1]) - wide * high
    return wide * high >= _OVERLAP * union
