"""Windows: as many rows of a shard as may be decoded at the same time.

A shard counts rows, but memory counts pixels: 32 scans of 100 megapixels take 10 GB as RGB. A window is limited by its
pixels instead, which the headers give before anything is decoded. Small images share a window, so that a batch can take
faces from many rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from bfr_models.errors import RowError
from tasks.images.codec import count_pixels
from tasks.worker.read_shard import Row, ShardInput

WINDOW_PIXELS = 32_000_000
"""96 MB of decoded RGB, and as much again while faces are pasted; about 120 faces of 512 px, enough for any batch."""


@dataclass
class Window:
    """Consecutive rows."""

    rows: list[Row] = field(default_factory=list)
    pixels: int = 0  # of their images and masks, as the headers say, once they are enlarged

    @property
    def is_large(self) -> bool:
        """Whether its only row exceeds the limit by itself."""
        return self.pixels > WINDOW_PIXELS


def windows(source: ShardInput, rows: Iterator[Row], scale: int = 1) -> Iterator[Window]:
    """Cuts `rows` into windows with at most `WINDOW_PIXELS` pixels in all, or with a single row. `scale` is the factor
    by which their images are enlarged."""
    window = Window()
    for row in rows:
        pixels = scale**2 * pixels_of(source, row)
        if window.rows and window.pixels + pixels > WINDOW_PIXELS:
            yield window
            window = Window()
        window.rows.append(row)
        window.pixels += pixels
    if window.rows:
        yield window


def pixels_of(source: ShardInput, row: Row) -> int:
    """How many pixels of a row are held at once, by the headers of its image and its mask, or of its ground truth,
    which is shrunk as soon as it is decoded; 0 if those cannot be read."""
    try:
        own = count_pixels(source.image_bytes(row)) + count_pixels(source.mask_bytes(row))
        return max(own, count_pixels(source.gt_bytes(row)))
    except RowError:  # reported when the row is decoded
        return 0
