"""Readers of PDFs (pypdfium2) and of cameras' raw files (rawpy), which come with the extra `formats`."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bfr_models.errors import RowError
from bfr_models.pixels import Uint8Image
from tasks.images.beside import Beside
from tasks.images.channels import Channels, of_levels
from tasks.images.extras import of_extra
from tasks.images.limits import MAX_FRAMES, MAX_PIXELS, check_size
from tasks.images.png import write_png
from tasks.images.png_chunks import resolution

Read = tuple[Channels, Beside, int]
PAGE_DPI = 300.0
_POINT = 72.0  # per inch
_SCALE = PAGE_DPI / _POINT * (1 - 1e-6)  # a little less: the library rounds up
_MOST_OF_A_PAGE = 0.9  # of its area: an image that covers so much of it is the page
_IMAGE = 3  # FPDF_PAGEOBJ_IMAGE
_REMAPPED = re.compile(rb"/Decode\s*(?:\[|\d+\s+\d+\s+R)")  # levels that mean something else than they do alone
_pdfium_lock = Lock()  # PDFium may be used by one thread at a time


@dataclass(frozen=True, eq=False)
class PdfPage:
    """The image of a page: the JPEG that is all of it, or pixels."""

    jpeg: bytes | None
    pixels: Uint8Image | None
    """(H, W) grey or (H, W, 3) RGB."""
    dpi: float | None
    """At which the page was drawn; None for an image that lay in it."""
    n_pages: int


def pdf_page(data: bytes, number: int, max_pixels: int = MAX_PIXELS) -> PdfPage:
    """A page of a PDF, counted from 0. RowError `undecodable`, `too_large` or `too_small`."""
    with _document(data) as document:
        page, count = document[number], len(document)
        image = _only_image(page)
        if image is None:
            width, height = (round(side / _POINT * PAGE_DPI) for side in page.get_size())
            check_size(width, height, max_pixels)
            return PdfPage(None, _pixels(page.render(scale=_SCALE)), PAGE_DPI, count)
        width, height = image.get_px_size()
        check_size(width, height, max_pixels)
        if image.get_filters() == ["DCTDecode"] and _is_as_drawn(jpeg := bytes(image.get_data()), data):
            return PdfPage(jpeg, None, None, count)
        return PdfPage(None, _pixels(image.get_bitmap(render=False)), None, count)


def later_pages(data: bytes) -> Iterator[bytes | None]:
    """The second page of a PDF and all that follow, as JPEG or PNG; None for one that cannot be drawn. None at all of
    what does not open."""
    try:
        with _document(data) as document:
            count = min(len(document), MAX_FRAMES)
    except RowError:
        return
    for number in range(1, count):
        yield _file_of(data, number)


def _file_of(data: bytes, number: int) -> bytes | None:
    try:
        page = pdf_page(data, number)
    except Exception:  # PDFium's wrapper raises anything for garbage; the row stays, without bytes
        return None
    if page.pixels is None:
        return page.jpeg
    chunks = [] if page.dpi is None else [resolution(page.dpi, page.dpi)]
    return write_png(len(page.pixels), [page.pixels], chunks)


@contextmanager
def _document(data: bytes) -> Iterator[Any]:
    pdfium = of_extra("pypdfium2", "PDFs")
    with _pdfium_lock:
        try:
            document = pdfium.PdfDocument(data)
        except pdfium.PdfiumError as error:
            raise RowError("undecodable", f"expected a whole PDF without a password, found none ({error})") from error
        try:
            yield document
        finally:
            document.close()


def _only_image(page: Any) -> Any | None:
    """The image that is all that an upright page shows; text that lies over a scan is not seen."""
    objects = list(page.get_objects(max_depth=2))
    images = [found for found in objects if found.type == _IMAGE]
    if len(images) != 1 or page.get_rotation():
        return None
    turned = images[0].get_matrix()
    upright = turned.a > 0 and turned.d > 0 and abs(turned.b) + abs(turned.c) < 1e-3 * (turned.a + turned.d)
    of_image, of_page = images[0].get_bounds(), page.get_cropbox()
    (left, bottom), (right, top) = (
        [choose(pair) for pair in zip(of_image[at : at + 2], of_page[at : at + 2], strict=True)]
        for at, choose in ((0, max), (2, min))
    )
    seen = _area(left, bottom, right, top)
    whole = seen >= _MOST_OF_A_PAGE * max(_area(*of_image), _area(*of_page))  # two pages may show halves of one image
    return images[0] if upright and whole else None


def _area(left: float, bottom: float, right: float, top: float) -> float:
    return max(0.0, right - left) * max(0.0, top - bottom)


def _is_as_drawn(jpeg: bytes, pdf: bytes) -> bool:
    """Whether a PDF gives the levels of a JPEG no other meaning. Adobe's of CMYK are inverse until it does."""
    with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
        return image.mode == "CMYK" or _REMAPPED.search(pdf) is None


def _pixels(bitmap: Any) -> Uint8Image:
    """(H, W) grey, or (H, W, 3) RGB: PDFium has blue first."""
    pixels: NDArray[Any] = np.array(bitmap.to_numpy())
    if pixels.ndim == 3 and pixels.shape[2] >= 3:
        pixels = pixels[..., 2::-1]
    return np.ascontiguousarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)


def develop(data: bytes, max_pixels: int) -> bytes | Read:
    """A camera's raw file: the bytes of the full-size JPEG in it, or the raw data, developed to 16 bits by the camera's
    own white balance."""
    with _opened_raw(data) as (rawpy, raw):
        check_size(raw.sizes.width, raw.sizes.height, max_pixels)
        if (preview := _full_preview(rawpy, raw)) is not None:
            return preview
        pixels = raw.postprocess(output_bps=16, use_camera_wb=True, no_auto_bright=True)
    is_grey = pixels.shape[2] == 1  # of a sensor without colour filters
    channels = of_levels(pixels[..., 0], None, "L", None) if is_grey else of_levels(pixels, None, "RGB", None)
    return channels, Beside(notes=["developed from raw data"]), 1


def raw_size(data: bytes) -> tuple[int, int]:
    """Width and height of a raw file's image, upright."""
    with _opened_raw(data) as (_, raw):
        width, height = raw.sizes.width, raw.sizes.height
        return (height, width) if raw.sizes.flip in (5, 6) else (width, height)


@contextmanager
def _opened_raw(data: bytes) -> Iterator[tuple[Any, Any]]:
    rawpy = of_extra("rawpy", "cameras' raw data")
    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            yield rawpy, raw
    except rawpy.LibRawError as error:
        raise RowError("undecodable", f"expected a whole raw file of a camera, found none ({error})") from error


def _full_preview(rawpy: Any, raw: Any) -> bytes | None:
    """The JPEG in a raw file, if it is as large as the raw data (cameras cut a few pixels off at the sides)."""
    try:
        preview = raw.extract_thumb()
    except rawpy.LibRawError:  # none, or of an unknown kind
        return None
    if preview.format != rawpy.ThumbFormat.JPEG:
        return None
    with Image.open(io.BytesIO(preview.data), formats=["JPEG"]) as image:
        full = 10 * max(image.size) >= 9 * max(raw.sizes.width, raw.sizes.height)
    return bytes(preview.data) if full else None
