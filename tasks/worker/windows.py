"""Windows: as many rows of a shard as may be decoded at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from bfr_models.errors import RowError
from tasks.images.codec import count_pixels
from tasks.worker.read_shard import Row, ShardInput

WINDOW_PIXELS = 32_000_000
"""Decoded RGB of so many pixels takes 96 MB, and as much again while faces are pasted."""


@dataclass
class Window:
    """Rows next to each other, in order."""

    rows: list[Row] = field(default_factory=list)
    pixels: int = 0  # of their pictures and masks, as the headers say

    @property
    def is_large(self) -> bool:
        """Whether it is one picture that is beyond the limit by itself."""
        return self.pixels > WINDOW_PIXELS


def windows(source: ShardInput, rows: Iterator[Row]) -> Iterator[Window]:
    """All `rows`, in windows whose pictures have at most `WINDOW_PIXELS` together, or of one row."""
    window = Window()
    for row in rows:
        pixels = _pixels(source, row)
        if window.rows and window.pixels + pixels > WINDOW_PIXELS:
            yield window
            window = Window()
        window.rows.append(row)
        window.pixels += pixels
    if window.rows:
        yield window


def _pixels(source: ShardInput, row: Row) -> int:
    try:
        return count_pixels(source.picture(row)) + count_pixels(source.mask(row))
    except RowError:  # it will be said when the row is decoded
        return 0
