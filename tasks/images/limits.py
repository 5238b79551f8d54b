"""Bounds on what one image may cost, whatever its file says."""

from __future__ import annotations

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
