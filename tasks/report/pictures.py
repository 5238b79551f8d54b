"""Pictures for pages: decoded and encoded again as WebP in data URIs, which drops their metadata. Needs no torch."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageOps

Box = tuple[int, int, int, int]
"""left, top, right, bottom in px"""

LADDER = ((512, 90), (512, 75), (384, 75), (256, 75), (160, 70), (96, 60))  # (longest side in px, quality), best first
LOSSLESS_SIDE = 128
EFFORT = 20  # of 100, without loss: a face takes half the time of 80, and the same bytes
MAX_PIXELS = 50_000_000  # larger ones are not opened for a page: two of them take 300 MB
MANY = 4  # a picture that is shown smaller is decoded at about this many times the size at which it is shown


@dataclass(frozen=True)
class Shown:
    """A picture on a page."""

    src: str
    size: tuple[int, int]  # px of the picture itself
    shown: tuple[int, int]  # px on the page

    @property
    def scale(self) -> float:
        return self.shown[0] / self.size[0]


def opened(encoded: bytes, side: int | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """The picture, upright, as RGB or RGBA with 8 bits, and its size. With `side` it may come smaller, but not smaller
    than that. ValueError for one that is too large; Pillow raises much else."""
    image: Image.Image = Image.open(io.BytesIO(encoded))
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width} x {image.height} px are too many to show here")
    exif = image.getexif()
    size = image.size[::-1] if exif.get(0x0112, 1) >= 5 else image.size  # from 5 on, width and height are swapped
    if side is not None:
        image.draft("RGB", (2 * side, 2 * side))  # libjpeg decodes a large JPEG at 1/2, 1/4 or 1/8 of its size
        if (factor := max(image.size) // (MANY * side)) > 1 and image.mode in ("L", "RGB", "RGBA"):
            image = image.reduce(factor)  # first, or transposing would make a second large image
            image.info["exif"] = exif.tobytes()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits: converting to RGB would clip at 255 instead of scaling
        image = image.convert("F").point(lambda level: level / 257).convert("L")
    return image.convert("RGBA" if image.has_transparency_data else "RGB"), size


def shown(
    image: Image.Image,
    budget: int,
    size: tuple[int, int] | None = None,
    ladder: Sequence[tuple[int, int]] = LADDER,
) -> Shown:
    """A picture of at most `budget` bytes before base64, or else the last of the ladder. `size` is that of the picture
    which `image` is a smaller copy of."""
    size = size or image.size
    small = max(size) <= LOSSLESS_SIDE
    data, on_page = _webp(image, LOSSLESS_SIDE, EFFORT, lossless=True) if small else (b"", size)
    for side, quality in ladder:
        if data and len(data) <= budget:
            break
        data, on_page = _webp(image, side, quality)
    return Shown("data:image/webp;base64," + base64.b64encode(data).decode(), size, on_page)


def image_uri(encoded: bytes, budget: int) -> Shown:
    """A whole picture, at most as large as the ladder's first step."""
    image, size = opened(encoded, LADDER[0][0])
    return shown(image, budget, size)


def _webp(image: Image.Image, side: int, quality: int, lossless: bool = False) -> tuple[bytes, tuple[int, int]]:
    if (scale := side / max(image.size)) < 1:
        size = max(1, round(scale * image.width)), max(1, round(scale * image.height))
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2)
    image.save(buffer := io.BytesIO(), "WEBP", quality=quality, method=2, lossless=lossless)
    return buffer.getvalue(), image.size
