"""Bounds on what one image may cost, whatever its file says."""

from __future__ import annotations

from bfr_models.errors import RowError

MAX_PIXELS = 200_000_000
"""Decoding an image of this size takes about 3 GB of memory."""
MIN_SIDE = 4
MAX_SCANS = 100
"""Scans of a progressive JPEG. Each costs the decoder a pass over all pixels; cameras and editors write about ten."""
MAX_SEGMENTS = 10_000
"""Segments of a JPEG, chunks of a PNG's metadata. A large ICC profile is spread over up to 255 segments."""
MAX_FRAMES = 4096
"""Pages of a TIFF that are counted at most: a small file can list any number of them."""
MAX_BLOCK = 8 * 2**20
"""Bytes of one block of metadata (a profile, XMP, a text), inflated. Larger ones are left out, and said to be."""


def check_size(width: int, height: int, max_pixels: int) -> None:
    """RowError `too_large` or `too_small` for an image that is."""
    if width * height > max_pixels:
        raise RowError(
            "too_large",
            f"expected at most {max_pixels / 1e6:g} megapixels, found {width} x {height} = "
            f"{width * height / 1e6:g} megapixels",
        )
    if min(width, height) < MIN_SIDE:
        raise RowError("too_small", f"expected at least {MIN_SIDE} px a side, found {width} x {height}")
