"""AVIF, JPEG XL, JPEG 2000, HEIF, DICOM, PDF and raw files: what went in comes out, or is refused with a reason."""

from __future__ import annotations

import io
import sys
import zlib

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageCms

from bfr_models.errors import RowError
from tasks.datasets import file_kinds
from tasks.images import extras
from tasks.images.codec import count_pixels, decode, encode
from tasks.images.document_readers import later_pages
from tests.newer_formats import (
    avif_turned,
    box,
    dicom,
    dng,
    dng_with_preview,
    exif,
    jp2_with_boxes,
    jxl_with_boxes,
    monochrome_dng,
    newer,
    pdf,
)
from tests.tasks.images.samples import code_of
from tests.tasks.images.test_zoo import wrong
from tests.zoo import DEEP, FLAT, pillow

XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def test_every_level_is_the_one_that_went_in() -> None:
    found = {}
    for animal in newer():
        found[animal.name] = wrong(animal)
        assert count_pixels(animal.data) == FLAT[..., 0].size, animal.name
        before = decode(animal.data)
        after = decode(encode(before.pixels, "png", like=before))
        for name in ("pixels", "alpha", "deep"):
            assert np.array_equal(getattr(before, name), getattr(after, name)), animal.name
    assert {name: how for name, how in found.items() if how} == {}
    assert len(found) == 57


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_avif_is_turned_once(orientation: int) -> None:
    data, stored = avif_turned(orientation, XMP, ICC)
    turned = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}[orientation]  # Pillow's Transpose
    upright = stored if turned is None else stored.transpose(Image.Transpose(turned))
    image = decode(data)
    assert image.pixels.shape[:2] == (upright.height, upright.width)
    assert np.abs(image.pixels.astype(int) - np.asarray(upright)).max() <= 90
    assert (image.icc, image.beside.xmp) == (ICC, XMP)


def test_boxes_of_jpeg_xl_and_jpeg_2000_travel_along() -> None:
    image = decode(jxl_with_boxes(6, XMP))
    assert np.array_equal(image.pixels, FLAT)  # EXIF's orientation counts for nothing there
    assert image.beside.xmp == XMP and image.exif is not None
    image = decode(jp2_with_boxes(XMP, ICC))
    assert np.array_equal(image.pixels, FLAT)
    assert (image.beside.xmp, image.icc) == (XMP, ICC)
    assert image.dpi == pytest.approx((200, 300), rel=1e-3)


def test_levels_of_dicom_fill_the_range_that_it_states() -> None:
    pytest.importorskip("pydicom")
    assert np.array_equal(decode(dicom(FLAT, 8)).pixels, FLAT)
    twelve = DEEP[..., 0] >> 4
    image = decode(dicom(twelve, 12))
    assert image.deep is not None
    assert np.array_equal(image.deep, (twelve.astype(np.int64) * 65535 + 2047) // 4095)
    inverse = decode(dicom(FLAT[..., 0], 8, PhotometricInterpretation="MONOCHROME1"))
    assert np.array_equal(inverse.pixels[..., 0], 255 - FLAT[..., 0])
    signed = (FLAT[..., 0].astype(np.int16) - 100) * 4
    window = decode(dicom(signed, 16, WindowCenter=112, WindowWidth=1025, NumberOfFrames=1))
    assert window.deep is not None
    assert np.abs(window.deep / 65535 - np.clip((signed - 111.5) / 1024 + 0.5, 0, 1)).max() < 1e-4
    jpeg = pillow(Image.fromarray(FLAT), "JPEG", quality=95, subsampling=0)
    seen = decode(dicom(FLAT, 8, compressed=jpeg, PhotometricInterpretation="YBR_FULL_422"))
    assert np.abs(seen.pixels.astype(int) - decode(jpeg).pixels).max() <= 2
    assert code_of(dicom(signed, 16)) == "undecodable"


def test_a_dicom_that_is_deflated_as_a_whole_is_refused_before_it_is_inflated() -> None:
    pytest.importorskip("pydicom")
    plain = dicom(FLAT, 8)
    meta = plain[: 144 + int.from_bytes(plain[140:144], "little")]
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    old = meta[meta.index(b"1.2.840.10008.1.2") :].split(b"\0")[0]
    assert old == b"1.2.840.10008.1.2.1", "explicit, little endian"
    head = meta.replace(
        b"UI" + (20).to_bytes(2, "little") + old + b"\0", b"UI" + (22).to_bytes(2, "little") + old + b".99"
    )
    head = head[:140] + (int.from_bytes(head[140:144], "little") + 2).to_bytes(4, "little") + head[144:]
    deflated = head + deflater.compress(plain[len(meta) :]) + deflater.flush()
    assert code_of(deflated) == "undecodable" and count_pixels(deflated) == 0


def test_pages_of_a_pdf_are_its_scans_or_are_drawn() -> None:
    pytest.importorskip("pypdfium2")
    jpeg = pillow(Image.fromarray(FLAT), "JPEG", quality=90)
    file = pdf(jpeg, "1 0 0 rg 0 0 36 108 re f", jpeg)
    image = decode(file)
    assert np.array_equal(image.pixels, decode(jpeg).pixels)
    assert image.n_frames == 3 and any("scan" in note for note in image.beside.notes)
    drawn, scan = later_pages(file)
    assert scan == jpeg and drawn is not None
    page = decode(drawn)
    assert page.pixels.shape == (450, 300, 3) and page.dpi == pytest.approx((300, 300), abs=0.1)
    assert (page.pixels[:, :140] == (255, 0, 0)).all() and (page.pixels[:, 160:] == 255).all()
    assert code_of(file[:60]) == "undecodable" and list(later_pages(file[:60])) == []


def test_a_pdf_may_show_a_part_of_its_scan_or_the_negative() -> None:
    pytest.importorskip("pypdfium2")
    jpeg = pillow(Image.fromarray(FLAT), "JPEG", quality=90)
    half = decode(pdf(jpeg).replace(b"/MediaBox", b"/CropBox[0 0 36 108]/MediaBox"))
    assert half.pixels.shape == (450, 150, 3)
    assert half.beside.notes == ["a page of a PDF, drawn at 300 dpi"]  # and not all of the scan
    negative = decode(pdf(jpeg).replace(b"/Filter/DCT", b"/Decode[1 0 1 0 1 0]/Filter/DCT"))
    assert np.abs(negative.pixels.astype(int) + decode(jpeg).pixels - 255).max() <= 2
    inks = Image.fromarray(FLAT).convert("CMYK")
    of_adobe = pdf(pillow(inks, "JPEG", quality=95)).replace(b"/DeviceRGB", b"/DeviceCMYK")
    seen = decode(of_adobe.replace(b"/Filter/DCT", b"/Decode[1 0 1 0 1 0 1 0]/Filter/DCT"))
    assert np.array_equal(seen.pixels, decode(pillow(inks, "JPEG", quality=95)).pixels)


def test_raw_data_are_developed() -> None:
    pytest.importorskip("rawpy")
    image = decode(dng())
    assert image.pixels.shape == (48, 64, 3) and image.bit_depth == 16
    assert np.ptp(image.pixels[8:-8, 8:-8].astype(int)) <= 6  # grey stays grey
    assert image.beside.notes == ["developed from raw data"]
    assert image.exif is not None and b"Test\0" in image.exif


def test_raw_data_without_colours_are_a_grey_picture() -> None:
    pytest.importorskip("rawpy")
    image = decode(monochrome_dng())
    assert image.grey and image.pixels.shape == (48, 64, 3) and image.bit_depth == 16
    again = decode(encode(image.pixels, "png", like=image))
    assert again.deep is not None and image.deep is not None and np.array_equal(again.deep, image.deep)


@pytest.mark.parametrize("orientation", [1, 6])
def test_the_full_size_jpeg_of_a_raw_file_goes_before_its_raw_data(orientation: int) -> None:
    pytest.importorskip("rawpy")
    scene = Image.fromarray(np.ascontiguousarray(FLAT[:, :64])).resize((64, 48))
    jpeg = pillow(scene, "JPEG", quality=95, subsampling=0)
    image = decode(dng_with_preview(jpeg, orientation))
    upright = np.rot90(decode(jpeg).pixels, -1 if orientation == 6 else 0)
    assert np.array_equal(image.pixels, upright) and image.bit_depth == 8
    assert image.beside.notes == ["the full-size image that the camera made of its raw data"]
    assert image.exif is not None and b"Test\0" in image.exif
    small = decode(dng_with_preview(pillow(scene.resize((16, 12)), "JPEG"), orientation))
    assert small.beside.notes == ["developed from raw data"] and small.pixels.shape == upright.shape


def test_a_jpeg_xl_that_was_a_jpeg_is_that_jpeg() -> None:
    profile = ICC.replace(b"rXYZ", b"tXYZ").replace(b"bXYZ", b"rXYZ").replace(b"tXYZ", b"bXYZ")  # not sRGB
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x0e\0\2\0\0\0\6\0\0\0\x1a\0\0\0\0hello\0"
    jpeg = pillow(Image.fromarray(FLAT), "JPEG", quality=92, icc_profile=profile, exif=exif, xmp=XMP, comment=b"hi")
    file = bytes(imagecodecs.jpegxl_encode_jpeg(jpeg, usecontainer=True))
    before, image = decode(jpeg), decode(file)
    assert np.array_equal(image.pixels, before.pixels) and (image.format, before.format) == ("JXL", "JPEG")
    assert vars(image.beside) == vars(before.beside)
    assert image.icc == profile and image.beside.comments == [b"hi"]
    at = file.index(b"jbrd")
    assert decode(file[:at] + b"free" + file[at + 4 :]).beside.notes == [
        "a colour profile, or another description of colours than sRGB's left out"
    ]  # from its pixels alone, where the JPEG cannot be had


def test_compressed_boxes_of_a_jpeg_xl_are_read_within_bounds() -> None:
    plain = jxl_with_boxes(6, b"")
    packed = [box(b"brob", kind + imagecodecs.brotli_encode(body)) for kind, body in (
        (b"xml ", XMP), (b"Exif", bytes(4) + exif(6)), (b"jumb", b"a claim"))]  # fmt: skip
    image = decode(plain[: plain.index(b"Exif") - 4] + b"".join(packed))
    assert image.beside.xmp == XMP and image.exif is not None and image.beside.notes == ["box jumb left out"]
    bomb = box(b"brob", b"xml " + imagecodecs.brotli_encode(bytes(2**25)))
    for odd in (bomb, box(b"brob", b"xml \xff"), box(b"brob", b"")):
        assert np.array_equal(decode(plain + odd).pixels, FLAT)
    assert decode(plain + bomb).beside.notes == ["xml of more than 8388608 bytes left out"]


def test_without_its_library_a_format_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    heif = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)
    for module, data, name in (
        ("pi_heif", heif, "a.HEIC"),
        ("pypdfium2", pdf(""), "a.pdf"),
        ("pydicom", None, "a.dcm"),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.setattr(file_kinds, "is_installed", lambda _: False)
        assert "bfr-pipeline[formats]" in file_kinds.why_skipped(name) and not file_kinds.is_image(name)
        if data is not None:
            with pytest.raises(RowError, match=r"bfr-pipeline\[formats\]"):
                decode(data)
    assert extras.is_installed("numpy") and not extras.is_installed("no_such_module")


def test_a_heif_is_read() -> None:
    heif = pytest.importorskip("pillow_heif")
    found = heif.from_pillow(Image.fromarray(FLAT))
    found.save(file := io.BytesIO(), quality=-1, chroma=444, matrix_coefficients=0)
    assert np.array_equal(decode(file.getvalue()).pixels, FLAT)
