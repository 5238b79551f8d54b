"""Pages of a TIFF as TIFFs of their own."""

from __future__ import annotations

import io

from PIL import Image

from tasks._images import MAX_PIXELS

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MAX_PAGES = 10_000


def split_pages(data: bytes | None) -> list[bytes | None]:
    """Each page of a multi-page TIFF, losslessly, with its bit depth, profile and resolution.

    Anything else, a TIFF that breaks on the way included, comes back as it is: one file, untouched.
    """
    if data is None or data[:4] not in _MAGIC:
        return [data]
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    try:
        with Image.open(io.BytesIO(data), formats=["TIFF"]) as image:
            count = getattr(image, "n_frames", 1)
            if not 1 < count <= MAX_PAGES:
                return [data]
            return [_page(image, number) for number in range(count)]
    except Exception:  # Pillow raises a dozen kinds on garbage
        return [data]


def _page(image: Image.Image, number: int) -> bytes:
    image.seek(number)
    kept = {name: image.info[name] for name in ("dpi", "icc_profile") if image.info.get(name)}
    buffer = io.BytesIO()
    image.save(buffer, "TIFF", compression="tiff_lzw", **kept)
    return buffer.getvalue()
