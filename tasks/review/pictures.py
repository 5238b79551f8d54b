"""Images of a run before and after, read and cut on demand: one row at a time, and only while somebody looks at it."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from bfr_models.errors import BfrError, RowError
from tasks.datasets.fetch_images import Fetcher
from tasks.datasets.image_column import addresses, image_bytes
from tasks.datasets.row_groups import DAMAGE, value_at
from tasks.export.rows import ExportRun
from tasks.images.codec import decode
from tasks.review.faces import AFTER, BEFORE, Row
from tasks.runs.layout import DATA
from tasks.runs.shards import Shard, require_unchanged

if TYPE_CHECKING:
    from bfr_models.pixels import Uint8Image

AROUND = 1.25  # side of a cut, in sides of the face's square
TILE = 320  # px: of a larger face a tile shows the middle, at 100 %
SCREEN = 1800  # px: longest side of a whole photo as it is sent
_MAX_PIXELS = 48_000_000  # of the decoded images that are kept, 3 bytes each
_MAX_CUTS = 96 * 2**20  # bytes of the encoded cuts that are kept
_AT_ONCE = 2  # images in the making
_BUFFER = 2**20  # bytes that are read of a column at a time


@dataclass(frozen=True, eq=False)
class Pair:
    """An image before and after, upright, (H, W, 3) uint8; or why it is not to be had."""

    before: Uint8Image | str
    after: Uint8Image | str

    @property
    def pixels(self) -> int:
        return sum(image.size // 3 for image in (self.before, self.after) if not isinstance(image, str))


class Pictures:
    """The images of a run. Any number of threads."""

    def __init__(self, run: ExportRun) -> None:
        self._run, self._column = run, run.asked("column", "image")
        self._is_photo = run.asked("input") == "photos"
        self._pairs = OrderedDict[tuple[int, int], Pair]()
        self._cuts = OrderedDict[tuple[int, str, bool], bytes]()
        self._lock, self._in_making = threading.Lock(), threading.Semaphore(_AT_ONCE)
        self._locks = defaultdict[tuple[int, int], threading.Lock](threading.Lock)

    def cut(self, row: Row, which: str, *, small: bool) -> bytes:
        """A face with what is around it, at 100 %, as lossless WebP; `small` is at most `TILE` px of its middle. Both
        sides have the size of the larger one. RowError if the image is not to be had."""
        key = (row["face"], which, small)
        with self._lock:
            if key in self._cuts:
                self._cuts.move_to_end(key)
                return self._cuts[key]
        pair = self._pair(row)
        image = _present(pair, which)
        other = pair.after if which == BEFORE else pair.before
        scale = max(1.0, other.shape[1] / image.shape[1]) if not isinstance(other, str) else 1.0
        source = pair.before if not isinstance(pair.before, str) else image
        cut = self._cut_out(row, image, image.shape[1] / source.shape[1])
        if scale > 1:
            size = (round(cut.shape[1] * scale), round(cut.shape[0] * scale))
            cut = np.asarray(cv2.resize(cut, size, interpolation=cv2.INTER_CUBIC), np.uint8)
        data = _webp(_middle(cut) if small else cut, lossless=True)
        with self._lock:
            self._cuts[key] = data
            while sum(map(len, self._cuts.values())) > _MAX_CUTS:
                self._cuts.popitem(last=False)
        return data

    def photo(self, row: Row, which: str) -> bytes:
        """The whole image of a face, of at most `SCREEN` px, as WebP. RowError if it is not to be had."""
        image = _present(self._pair(row), which)
        scale = min(1.0, SCREEN / max(image.shape[:2]))
        if scale < 1:
            size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        return _webp(image, lossless=False)

    def size(self, row: Row) -> tuple[int, int]:
        """Width and height of the image that the boxes are measured in: that of the input, or else the restored one."""
        pair = self._pair(row)
        image = pair.before if not isinstance(pair.before, str) else _present(pair, AFTER)
        return image.shape[1], image.shape[0]

    def _pair(self, row: Row) -> Pair:
        key = (row["file"], row["row"])
        with self._lock:
            if key in self._pairs:
                self._pairs.move_to_end(key)
                return self._pairs[key]
            lock = self._locks[key]
        with lock, self._in_making:  # the faces of one photo are asked for together: it is decoded once
            with self._lock:
                if key in self._pairs:
                    return self._pairs[key]
            pair = self._read(row)
            with self._lock:
                self._pairs[key] = pair
                self._locks.pop(key, None)
                while sum(one.pixels for one in self._pairs.values()) > _MAX_PIXELS and len(self._pairs) > 1:
                    self._pairs.popitem(last=False)
        return pair

    def _read(self, row: Row) -> Pair:
        shard, entry = self._run.shards[row["file"]]
        kept = f"source_{self._column}" if self._column.casefold() == "restored" else self._column
        cells = dict[str, Any]()
        try:
            with self._run.store.open_input(entry[DATA]) as opened:
                cells = _cells(opened, row["row"], ["restored", kept], range(10**9))
            after: Uint8Image | str = decode(image_bytes(cells["restored"])).pixels
        except (RowError, *DAMAGE) as error:
            after = str(error)
        try:
            own = image_bytes(cells[kept], lambda _: None) if cells.get(kept) else self._original(shard, row)
            before: Uint8Image | str = decode(own).pixels
        except (BfrError, RowError, *DAMAGE) as error:
            before = str(error)
        return Pair(before, after)

    def _original(self, shard: Shard, row: Row) -> bytes | None:
        """The input as the source has it."""
        require_unchanged(shard)
        groups = range(shard.row_group_start, shard.row_group_stop)
        with shard.open() as opened:
            cell = _cells(opened, row["source_row"] - shard.first_row, [self._column], groups)[self._column]
        column = pa.chunked_array([pa.array([cell])])
        return image_bytes(cell, Fetcher(shard.dataset, addresses(column)))

    def _cut_out(self, row: Row, image: Uint8Image, scale: float) -> Uint8Image:
        """The square around a face; all of an image that is a face. `scale` is that of the image to the boxes."""
        if not self._is_photo:
            return image
        half = scale * AROUND / 2 * max(row["side"] or 0, row["x1"] - row["x0"], row["y1"] - row["y0"])
        x, y = scale * (row["x0"] + row["x1"]) / 2, scale * (row["y0"] + row["y1"]) / 2
        left, top = max(0, round(x - half)), max(0, round(y - half))
        right, bottom = min(image.shape[1], round(x + half)), min(image.shape[0], round(y + half))
        if right <= left or bottom <= top:
            raise RowError("undecodable", "expected a face inside its image, found one outside")
        return image[top:bottom, left:right]


def _present(pair: Pair, which: str) -> Uint8Image:
    image = pair.before if which == BEFORE else pair.after
    if isinstance(image, str):
        raise RowError("missing", image)
    return image


def _cells(opened: BinaryIO, row: int, columns: list[str], groups: range) -> dict[str, Any]:
    """Some columns of one row, counted from the first of the row groups. A large row group is never whole in memory."""
    parquet = pq.ParquetFile(opened, buffer_size=_BUFFER)
    names = [name for name in columns if name in parquet.schema_arrow.names]
    for group in range(groups.start, min(groups.stop, parquet.num_row_groups)):
        rows = parquet.metadata.row_group(group).num_rows
        if row < rows:
            batches = parquet.iter_batches(batch_size=1, row_groups=[group], columns=names, use_threads=False)
            table = pa.Table.from_batches([next(islice(batches, row, None))])
            return {name: value_at(table[name], 0) for name in names}
        row -= rows
    raise RowError("missing", "expected the row in its file, found fewer rows")


def _middle(face: Uint8Image) -> Uint8Image:
    top, left = max(0, (face.shape[0] - TILE) // 2), max(0, (face.shape[1] - TILE) // 2)
    return face[top : top + TILE, left : left + TILE]


def _webp(image: Uint8Image, *, lossless: bool) -> bytes:
    picture = Image.fromarray(np.ascontiguousarray(image))
    picture.save(buffer := io.BytesIO(), "WEBP", lossless=lossless, quality=60 if lossless else 88, method=0)
    return buffer.getvalue()
