"""An image in the format of its original, with what that file has besides pixels, and with the mark of the change.

| format | pixels | metadata |
|---|---|---|
| JPEG | quantisation tables, subsampling, progressive or not, grey, CMYK | all segments |
| TIFF | depth, channels, compression, predictor; other pages byte for byte | all tags |
| PNG | depth and channels; a palette becomes RGB | all chunks |
| WebP | lossless if it was, else quality 95 | EXIF, XMP, ICC |
| BMP | 8 bits | resolution; there is no place for the mark |
| GIF, animations, AVIF, HEIF, JPEG XL, JPEG 2000, raw, PDF, DICOM | stay as they are: a PNG is put beside them | |
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from tasks.export import xmp
from tasks.export.canvas import Canvas
from tasks.export.jpeg import write_jpeg
from tasks.export.notes import Notes
from tasks.export.png import write_png
from tasks.export.thumbnails import without_exif_thumbnail
from tasks.export.tiff import write_tiff
from tasks.images.enlarged import enlarged_exif, enlarged_xmp
from tasks.images.kinds import kind_of
from tasks.images.png_chunks import split_png
from tasks.images.tiff_directories import Tiff, contents
from tasks.images.tiff_reader import is_raw

_WEBP_QUALITY = 95


def takes_pixels(data: bytes) -> bool:
    """Whether new pixels can be put into a file of this kind: not into 256 colours, nor into one frame of many, nor
    into what no library here writes with all that it has beside the pixels."""
    kind = kind_of(data)
    if kind == "PNG":
        return split_png(data)[1].n_frames == 1
    if kind == "WEBP":
        with Image.open(io.BytesIO(data), formats=["WEBP"]) as image:
            return int(getattr(image, "n_frames", 1)) == 1
    if kind == "TIFF":
        tiff = Tiff(data)
        return not is_raw(tiff, contents(tiff).image)
    return kind in ("JPEG", "BMP")


def write_like(files: Sequence[bytes], canvases: Mapping[int, Canvas], event: xmp.Event, notes: Notes) -> bytes:
    """The file with the canvases, by number of the page (0 but for TIFF), for pixels.

    `files` is the original or, of a TIFF of several pages, one for each page. RowError for what a format cannot hold.
    """
    kind = kind_of(files[0]) or ""
    if kind == "TIFF":
        return write_tiff(files, canvases, event, notes)
    write = {"JPEG": write_jpeg, "PNG": write_png, "WEBP": _webp, "BMP": _bmp, "GIF": write_png}[kind]
    return write(files[0], canvases[0], event, notes)


def _webp(original: bytes, canvas: Canvas, event: xmp.Event, notes: Notes) -> bytes:
    with Image.open(io.BytesIO(original), formats=["WEBP"]) as image:
        info = image.info
        packet = info.get("xmp")
        packet = packet and enlarged_xmp(packet, canvas.factor)
        options: dict[str, Any] = {"xmp": xmp.mark(packet, event, notes)}
        if exif := info.get("exif"):
            exif = enlarged_exif(exif, canvas.factor)
            options["exif"] = without_exif_thumbnail(exif.removeprefix(b"Exif\0\0"))
        if icc := info.get("icc_profile"):
            options["icc_profile"] = icc
    options |= {"lossless": b"VP8L" in _chunks(original), "exact": True, "quality": _WEBP_QUALITY}
    canvas.image.save(file := io.BytesIO(), "WEBP", **options)
    return file.getvalue()


def _chunks(riff: bytes) -> set[bytes]:
    """The types of a WebP's chunks: VP8L has lossless pixels."""
    found, at = set[bytes](), 12
    while at + 8 <= len(riff):
        length = int.from_bytes(riff[at + 4 : at + 8], "little")
        found.add(riff[at : at + 4])
        at += 8 + length + length % 2
    return found


def _bmp(original: bytes, canvas: Canvas, event: xmp.Event, notes: Notes) -> bytes:
    notes.add("a BMP has no place for the mark, which only this record has")
    with Image.open(io.BytesIO(original), formats=["BMP"]) as image:
        dpi = image.info.get("dpi")
        dpi = dpi and tuple(canvas.factor * value for value in dpi)
    canvas.image.save(file := io.BytesIO(), "BMP", **({"dpi": dpi} if dpi else {}))
    return file.getvalue()
