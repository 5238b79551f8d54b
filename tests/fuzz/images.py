"""The image reader: whatever the bytes, an image that can be written again, or a reason."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import atheris

with atheris.instrument_imports(include=["tasks", "tifffile", "PIL"]):
    from tasks.images.codec import count_pixels, decode, encode, notes_on
    from tasks.images.glimpse import glimpse
    from tasks.images.tiff_pages import split_pages

from tests.fuzz.harness import fuzz

_MAX_PIXELS = 2_000_000


def check(data: bytes) -> None:
    count_pixels(data)
    glimpse(data, 64)
    split_pages(data)
    image = decode(data, _MAX_PIXELS)
    for fmt in ("png", "jpeg", "webp"):
        encode(image.pixels, fmt, like=image)
        notes_on(image, fmt, image.pixels)
    again = decode(encode(image.pixels, "png", like=image), _MAX_PIXELS)
    assert (again.pixels == image.pixels).all()


def _seeds() -> Iterator[bytes]:
    from tests.newer_formats import dicom, dng, jp2_with_boxes, jxl_with_boxes, monochrome_dng, newer, pdf
    from tests.zoo import FLAT, odd_tiffs, others, pngs, tiffs

    yield from (
        dicom(FLAT, 8),
        dng(),
        monochrome_dng(),
        pdf("1 0 0 rg 0 0 36 108 re f"),
        jxl_with_boxes(6, b"<x/>"),
        jp2_with_boxes(b"", b""),
    )
    yield from (animal.data for animal in newer())
    for animal in itertools.chain(tiffs(17), odd_tiffs(), pngs(), others()):
        yield animal.data


if __name__ == "__main__":
    fuzz(check, _seeds)
