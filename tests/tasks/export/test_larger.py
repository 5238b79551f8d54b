"""An exported image that was enlarged prints as large as before, and says how many pixels it has."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from bfr_models.upscalers.lanczos import enlarge
from tasks.export.canvas import with_restored
from tasks.export.encode import write_like
from tasks.export.larger import larger_jfif, larger_phys
from tasks.export.notes import Notes
from tasks.export.thumbnails import without_photoshop_thumbnail
from tasks.images.codec import decode, encode
from tests.tasks.export.edited import EVENT
from tests.tasks.images.samples import gradient, opened, saved

RGB = Image.fromarray(np.kron(gradient(), np.ones((4, 4, 1), np.uint8)))
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:exif="http://ns.adobe.com/exif/1.0/" exif:PixelXDimension="128"/>'
    b"</rdf:RDF></x:xmpmeta>"
)


def enlarged(data: bytes, factor: int) -> bytes:
    """The file as it is exported by a run that has enlarged it."""
    like = decode(data)
    restored = encode(enlarge(like.pixels, factor), "png", 95, like, factor)
    canvas = with_restored(data, restored, None, Notes())
    assert canvas is not None and canvas.factor == factor
    return write_like([data], {0: canvas}, EVENT, Notes())


def sample(kind: str) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "Ada"
    exif[ExifTags.Base.XResolution], exif[ExifTags.Base.YResolution] = 300.0, 200.0
    inner = exif.get_ifd(ExifTags.IFD.Exif)
    inner[ExifTags.Base.ExifImageWidth], inner[ExifTags.Base.ExifImageHeight] = RGB.size
    if kind == "TIFF":
        return saved(RGB, kind, dpi=(300, 200), tiffinfo={0x8769: {0xA002: 128, 0xA003: 96}, 700: XMP})
    if kind == "PNG":
        (texts := PngInfo()).add_itxt("XML:com.adobe.xmp", XMP.decode())
        return saved(RGB, kind, dpi=(300, 200), exif=exif, pnginfo=texts)
    return saved(RGB, kind, dpi=(300, 200), exif=exif, xmp=XMP, **({"lossless": True} if kind == "WEBP" else {}))


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "PNG", "WEBP"])
def test_resolution_and_sizes_grow_as_in_the_runs_rows(kind: str, factor: int) -> None:
    out = opened(enlarged(sample(kind), factor))
    assert out.size == (factor * 128, factor * 96)
    tags = out.getexif()
    below = tags.get_ifd(ExifTags.IFD.Exif)
    assert [below[ExifTags.Base.ExifImageWidth], below[ExifTags.Base.ExifImageHeight]] == [factor * 128, factor * 96]
    assert [float(tags[tag]) for tag in (0x011A, 0x011B)] == [factor * 300, factor * 200]
    packet = tags[700] if kind == "TIFF" else out.info["xmp"]
    assert f'exif:PixelXDimension="{factor * 128}"'.encode() in packet
    if kind != "WEBP":  # which has no resolution of its own
        assert out.info["dpi"] == pytest.approx((factor * 300, factor * 200), abs=0.1)


def test_a_bmp_prints_as_large_as_before() -> None:
    assert opened(enlarged(saved(RGB, "BMP", dpi=(300, 300)), 2)).info["dpi"] == pytest.approx((600, 600), abs=0.1)


def test_shapes_of_pixels_and_what_would_not_fit_stay() -> None:
    shape = b"JFIF\0\1\1\0" + struct.pack(">HH", 2, 1) + b"\0\0"
    assert larger_jfif(shape, 4) == shape
    dense = b"JFIF\0\1\1\1" + struct.pack(">HH", 300, 30_000) + b"\0\0"
    assert larger_jfif(dense, 4) == dense and larger_jfif(dense, 2)[8:12] == struct.pack(">HH", 600, 60_000)
    assert larger_phys(struct.pack(">IIB", 2, 1, 0), 2) == struct.pack(">IIB", 2, 1, 0)
    assert larger_phys(struct.pack(">IIB", 11811, 11811, 1), 2) == struct.pack(">IIB", 23622, 23622, 1)


def test_photoshops_resolution_grows() -> None:
    def resource(number: int) -> bytes:
        info = struct.pack(">IHHIHH", number << 16, 1, 2, number << 16, 1, 2)
        return b"8BIM" + struct.pack(">HH", 1005, 0) + struct.pack(">I", len(info)) + info

    others = b"8BIM" + struct.pack(">HHI", 1028, 0, 4) + b"IPTC"
    assert without_photoshop_thumbnail(resource(300) + others, 2) == resource(600) + others
    assert without_photoshop_thumbnail(resource(300) + others) == resource(300) + others
