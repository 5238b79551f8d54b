"""An image that was enlarged, as a file: everything that the original had beside its colours is enlarged with it."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bfr_models.upscalers.lanczos import bands, enlarge_rows
from tasks.images.beside import Beside
from tasks.images.exif_block import ExifBlock
from tasks.images.png import write_png
from tasks.images.sixteen_bit import Uint16Image, merged

if TYPE_CHECKING:
    from bfr_models.pixels import Uint8Image

MOST_BYTES = 1_800_000_000
"""Of the pixels of an enlarged image: below the 2 GiB that a cell of a Parquet file can hold."""
_XMP_SIZES = re.compile(
    rb"((?:tiff:(?:ImageWidth|ImageLength|[XY]Resolution)|exif:Pixel[XY]Dimension)\s*(?:=\s*[\"']|>)\s*)([0-9]+)"
)


def enlarged_bytes(pixels: Uint8Image, deep: Uint16Image | None, grey: bool, alpha: bool, factor: int) -> int:
    """What an enlarged image takes in memory, and uncompressed in a file."""
    height, width = pixels.shape[:2]
    in_file = deep[0, 0].nbytes if deep is not None else (1 if grey else 3) + alpha
    return factor**2 * height * width * max(in_file, pixels.shape[2])


def enlarged_beside(beside: Beside, factor: int) -> Beside:
    """With the sizes and resolutions that it names multiplied: the image prints as large as before."""
    if factor == 1:
        return beside
    dpi = beside.dpi and (factor * beside.dpi[0], factor * beside.dpi[1])
    exif, xmp = beside.exif and enlarged_exif(beside.exif, factor), beside.xmp and enlarged_xmp(beside.xmp, factor)
    return replace(beside, dpi=dpi, exif=exif, xmp=xmp)


def enlarged_xmp(xmp: bytes, factor: int) -> bytes:
    """An XMP packet with the sizes and resolutions of the enlarged image."""
    return _XMP_SIZES.sub(lambda found: found[1] + str(factor * int(found[2])).encode(), xmp) if factor > 1 else xmp


def enlarged_exif(exif: bytes, factor: int) -> bytes:
    """The same of an EXIF block, which then starts with `Exif`; one that does not read stays as it is."""
    if factor == 1:
        return exif
    try:
        return ExifBlock(exif).enlarged(factor)
    except (ValueError, struct.error):  # broken metadata is no reason to reject an image
        return exif


def enlarged_png(
    image: Uint8Image,
    factor: int,
    before: Uint8Image,
    grey: bool,
    alpha: NDArray[np.uint8] | None,
    deep: Uint16Image | None,
    chunks: Sequence[tuple[bytes, bytes]],
) -> bytes:
    """A PNG of `image`, made by enlarging `before` by `factor`. `alpha` and `deep` are those of `before`: enlarged,
    they fill what the 8 bits of `image` do not say."""

    def lines() -> Iterator[NDArray[Any]]:
        for rows in bands(len(before), factor):
            band = image[rows]
            if deep is not None:
                yield merged(enlarge_rows(deep, factor, rows), band, enlarge_rows(before, factor, rows))
            else:
                colours = band[..., :1] if grey else band
                more = [] if alpha is None else [enlarge_rows(alpha, factor, rows)[..., None]]
                yield np.concatenate([colours, *more], axis=2)

    return write_png(len(image), lines(), chunks)
