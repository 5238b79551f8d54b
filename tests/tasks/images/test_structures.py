"""Files that hold several images, or damaged and oversized metadata: the full image is found, and the rest is said."""

from __future__ import annotations

import io
import os
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageFile, PngImagePlugin

from tasks.images.codec import count_pixels, decode, encode, notes_on
from tasks.images.tiff_pages import split_pages
from tests.hostile_images import chunk
from tests.tasks.images.samples import SRGB, code_of, gradient, opened, saved
from tests.zoo import FLAT

SMALL = np.ascontiguousarray(np.asarray(Image.fromarray(FLAT).resize((14, 9))))
PNG = saved(Image.fromarray(FLAT), "PNG")


def tiff_of(*images: tuple[np.ndarray[Any, Any], dict[str, Any]]) -> bytes:
    with tifffile.TiffWriter(file := io.BytesIO()) as writer:
        for pixels, options in images:
            writer.write(pixels, photometric="rgb", metadata=None, **options)
    return file.getvalue()


def mpo(count: int = 2) -> bytes:
    """What stereo cameras and phones write."""
    images = [Image.fromarray(np.roll(gradient(), i, axis=1)) for i in range(count)]
    return saved(images[0], "MPO", save_all=True, append_images=images[1:], quality=95)


def test_a_jpeg_with_further_pictures_behind_it_is_the_first_of_them() -> None:
    image = decode(mpo(3))
    first = opened(mpo(1))
    assert np.array_equal(image.pixels, np.asarray(first))
    assert (image.format, image.n_frames) == ("JPEG", 3)
    assert image.beside.notes == ["another view x 2 left out"] or "x 2 left out" in image.beside.notes[0]
    assert count_pixels(mpo(3)) == 24 * 32


@pytest.mark.parametrize(
    "damage", [b"MPF\0", b"MPF\0II*\0\xff\xff\xff\xff", b"MPF\0MM\0*\0\0\0\x08\xff\xff", b"ICC_PROFILE\0"]
)
def test_what_is_broken_behind_a_jpegs_first_segment_does_not_cost_the_image(damage: bytes) -> None:
    jpeg = saved(Image.fromarray(gradient()), "JPEG")
    segment = b"\xff\xe2" + struct.pack(">H", len(damage) + 2) + damage
    assert np.array_equal(decode(jpeg[:2] + segment + jpeg[2:]).pixels, np.asarray(opened(jpeg)))


@pytest.mark.parametrize("kind", [b"APP0", b"EXIF", b"APP13", b"APP14?"])
def test_garbage_in_any_segment_does_not_cost_the_image(kind: bytes) -> None:
    jpeg, junk = saved(Image.fromarray(gradient()), "JPEG"), os.urandom(200)
    marker = {b"APP0": b"\xff\xe0JFXX\0", b"EXIF": b"\xff\xe1Exif\0\0", b"APP13": b"\xff\xedPhotoshop 3.0\0"}.get(
        kind, b"\xff\xef"
    )
    body = marker[2:] + junk
    segment = marker[:2] + struct.pack(">H", len(body) + 2) + body
    assert np.array_equal(decode(jpeg[:2] + segment + jpeg[2:]).pixels, np.asarray(opened(jpeg)))


def _with_chunk(kind: bytes, body: bytes, *, sound: bool = True) -> bytes:
    made = chunk(kind, body)
    return PNG[:33] + (made if sound else made[:-4] + bytes(4)) + PNG[33:]


@pytest.mark.parametrize("size", [2**21, 2**24])
def test_a_png_with_megabytes_of_metadata_keeps_its_picture(size: int) -> None:
    """Whatever is within the bound is kept; more is left out, and said to be."""
    body = {
        b"zTXt": b"Description\0\0" + zlib.compress(bytes([65]) * size),
        b"iCCP": b"profile\0\0" + zlib.compress(SRGB[:128] + bytes(size)),
        b"iTXt": b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b" " * size),
        b"eXIf": b"II*\0\x08\0\0\0\0\0\0\0\0\0" + bytes(size),
    }
    for kind, data in body.items():
        image = decode(_with_chunk(kind, data))
        assert np.array_equal(image.pixels, FLAT), kind
        assert bool(image.beside.notes) == (size > 2**23), (kind, image.beside.notes)
        assert np.array_equal(decode(encode(image.pixels, "png", like=image)).pixels, FLAT)


@pytest.mark.parametrize("kind", [b"tEXt", b"pHYs", b"iCCP", b"eXIf", b"tRNS", b"gAMA", b"prVt"])
def test_a_wrong_checksum_beside_the_pixels_does_not_cost_them(kind: bytes) -> None:
    image = decode(_with_chunk(kind, b"\0" * 9, sound=False))
    assert np.array_equal(image.pixels, FLAT)
    assert image.beside.notes == [f"a damaged chunk {kind.decode()} left out"]


def test_a_wrong_checksum_of_the_pixels_is_named() -> None:
    at = PNG.index(b"IDAT")
    broken = PNG[: at + 8] + bytes([PNG[at + 8] ^ 1]) + PNG[at + 9 :]
    with pytest.raises(Exception, match="expected a whole PNG, found its chunk IDAT cut off or with a wrong CRC"):
        decode(broken)
    assert code_of(PNG[:29] + bytes(4) + PNG[33:]) == "undecodable"


@pytest.mark.parametrize("flagged", [True, False])
def test_a_preview_in_front_of_a_scan_is_not_taken_for_it(flagged: bool) -> None:
    data = tiff_of((SMALL, {"subfiletype": int(flagged)}), (FLAT, {"subfiletype": 0}))
    image = decode(data)
    assert np.array_equal(image.pixels, FLAT)
    assert (image.n_frames, image.beside.notes) == (1, ["a preview left out"])
    assert count_pixels(data) == FLAT.shape[0] * FLAT.shape[1]
    assert split_pages(data) == [data]


@pytest.mark.parametrize("flag", [0, 1])
def test_an_image_below_its_preview_is_found(flag: int) -> None:
    """As in a DNG: the first directory is a preview, the image is in a directory below it."""
    with tifffile.TiffWriter(file := io.BytesIO()) as writer:
        writer.write(SMALL, photometric="rgb", metadata=None, subfiletype=flag, subifds=1)
        writer.write(FLAT, photometric="rgb", metadata=None, subfiletype=0)
    image = decode(file.getvalue())
    assert np.array_equal(image.pixels, FLAT)
    assert image.beside.notes == ["a preview left out"]


def test_smaller_versions_below_an_image_are_not_it() -> None:
    """As in a pyramid."""
    with tifffile.TiffWriter(file := io.BytesIO()) as writer:
        writer.write(FLAT, photometric="rgb", metadata=None, subifds=2)
        writer.write(FLAT[::2, ::2], photometric="rgb", metadata=None, subfiletype=1)
        writer.write(FLAT[::4, ::4], photometric="rgb", metadata=None, subfiletype=1)
    image = decode(file.getvalue())
    assert np.array_equal(image.pixels, FLAT)
    assert (image.n_frames, image.beside.notes) == (1, ["a preview x 2 left out"])


def test_raw_data_below_a_preview_is_refused_and_the_preview_not_passed_off() -> None:
    with tifffile.TiffWriter(file := io.BytesIO()) as writer:
        writer.write(SMALL, photometric="rgb", metadata=None, subfiletype=1, subifds=1)
        writer.write(FLAT[..., 0].astype(np.uint16), photometric="cfa", metadata=None, subfiletype=0)
    with pytest.raises(Exception, match="a camera's raw data"):
        decode(file.getvalue())


def test_pages_of_a_scan_are_pages_however_they_differ() -> None:
    data = tiff_of((FLAT, {}), (FLAT[:, ::-1], {}), (FLAT[:20], {}))
    assert decode(data).n_frames == 3
    assert [decode(page).pixels.shape[:2] for page in split_pages(data)] == [(45, 70), (45, 70), (20, 70)]


def test_a_truncated_scan_or_one_with_empty_strips_is_no_picture() -> None:
    for compression in (None, "deflate"):
        data = tiff_of((FLAT, {"rowsperstrip": 5, "compression": compression}))
        with tifffile.TiffFile(io.BytesIO(data)) as opened_file:
            page = opened_file.pages.first
            place = page.tags["StripByteCounts"].valueoffset
        for broken in (data[: page.dataoffsets[-1] + 2], data[:place] + bytes(4) + data[place + 4 :]):
            assert code_of(broken) == "undecodable"


def test_an_embedded_thumbnail_does_not_stay_beside_new_pixels() -> None:
    exif = Image.Exif()
    exif[315] = "Ada"
    block = exif.tobytes()
    thumbnail = saved(Image.fromarray(SMALL), "JPEG")
    body = bytearray(block)
    first = struct.unpack_from("<I" if block[6:8] == b"II" else ">I", block, 10)[0]
    order = "<" if block[6:8] == b"II" else ">"
    count = struct.unpack_from(order + "H", block, 6 + first)[0]
    at = len(block) - 6
    struct.pack_into(order + "I", body, 6 + first + 2 + 12 * count, at)
    entries = struct.pack(
        order + "HHHIIHHII I".replace(" ", ""), 2, 0x0201, 4, 1, at + 30, 0x0202, 4, 1, len(thumbnail), 0
    )
    data = saved(Image.fromarray(FLAT), "JPEG", exif=bytes(body) + entries + thumbnail)
    image = decode(data)
    link = 6 + first + 2 + 12 * count
    assert image.exif == bytes(body[:link]) + bytes(4) + bytes(body[link + 4 :])  # and every other byte stays
    for fmt in ("png", "jpeg", "webp"):
        written = encode(image.pixels, fmt, like=image)  # type: ignore[arg-type]
        assert thumbnail[20:200] not in written
        assert opened(written).getexif()[315] == "Ada"


def test_tags_of_a_page_come_along_when_pages_are_split() -> None:
    tags = [(315, 2, 4, "Ada\0", True)]
    data = tiff_of(
        (FLAT, {"extratags": tags, "resolution": (300, 300), "resolutionunit": 2}), (FLAT, {"extratags": tags})
    )
    pages = [decode(page) for page in split_pages(data)]
    assert [opened(encode(page.pixels, "png", like=page)).getexif()[315] for page in pages] == ["Ada", "Ada"]
    assert pages[0].dpi == (300, 300)


def test_texts_and_colour_data_of_a_png_come_along_and_are_missed_aloud_elsewhere() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "Portrait")
    info.add_itxt("Beschreibung", "Großmutter, 1923", zip=True)
    info.add(b"gAMA", struct.pack(">I", 45455))
    info.add(b"cHRM", struct.pack(">8I", *range(8)))
    info.add(b"cICP", bytes([9, 16, 0, 1]))
    image = decode(saved(Image.fromarray(FLAT), "PNG", pnginfo=info))
    written = encode(image.pixels, "png", like=image)
    found = opened(written)
    assert (found.info["Title"], found.info["Beschreibung"]) == ("Portrait", "Großmutter, 1923")
    for kind in (b"gAMA", b"cHRM", b"cICP"):
        assert kind in written
    assert notes_on(image, "png", image.pixels) == ""
    missed = notes_on(image, "jpeg", image.pixels)
    assert all(word in missed for word in ("Title", "Beschreibung", "gAMA", "cICP"))


@pytest.mark.parametrize("fmt", ["png", "jpeg", "webp"])
def test_xmp_iptc_and_comments_come_along(fmt: str) -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6">Ada</rdf:Description></x:xmpmeta>'
    iptc = b"\x1c\x02\x78\0\x08Caption!"
    resource = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(iptc)) + iptc + bytes(len(iptc) % 2)
    app13 = b"Photoshop 3.0\0" + resource
    extra = b"\xff\xed" + struct.pack(">H", len(app13) + 2) + app13
    data = saved(Image.fromarray(FLAT), "JPEG", xmp=xmp, comment=b"found in the attic", extra=extra)
    image = decode(data)
    assert image.pixels.shape[:2] == (70, 45)  # turned, as its XMP says
    written = encode(image.pixels, fmt, like=image)  # type: ignore[arg-type]
    again = decode(written)
    assert again.beside.xmp == xmp.replace(b'"6"', b'"1"')
    missed = notes_on(image, fmt, image.pixels)  # type: ignore[arg-type]
    if fmt == "webp":
        assert missed == "IPTC left out; a comment left out"
    else:
        assert missed == "" and again.beside.iptc == iptc
        assert (b"found in the attic" in written) and np.array_equal(again.pixels.shape, image.pixels.shape)


def test_pillow_is_not_told_to_accept_truncated_files() -> None:
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


_PHOTO = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:GCamera="c" xmlns:GDepth="d" xmlns:GImage="i" xmlns:dc="e" dc:format="kept"{}>'
    "{}</rdf:Description></rdf:RDF></x:xmpmeta>"
)


@pytest.mark.parametrize(
    ("attributes", "elements", "left_out"),
    [
        (' GCamera:MotionPhoto="1" GCamera:MotionPhotoVersion="1"', "", ["a video"]),
        ("", "<GCamera:MicroVideo>1</GCamera:MicroVideo>", ["a video"]),
        (' GDepth:Format="RangeInverse" GDepth:Data="AAAA"', "", ["a map of depths"]),
        (' GImage:Mime="image/jpeg"', "<GImage:Data>AAAA</GImage:Data>", ["another picture in XMP"]),
    ],
)
def test_what_xmp_says_of_other_pixels_does_not_stay(attributes: str, elements: str, left_out: list[str]) -> None:
    image = decode(saved(Image.fromarray(FLAT), "JPEG", xmp=_PHOTO.format(attributes, elements).encode()))
    assert image.beside.xmp == _PHOTO.format("", "").encode()
    assert image.beside.notes == [f"{what} left out" for what in left_out]


def test_a_profile_that_is_cut_off_is_left_out() -> None:
    for fmt in ("JPEG", "PNG", "WEBP", "TIFF"):
        image = decode(saved(Image.fromarray(FLAT), fmt, icc_profile=SRGB[:300]))
        assert image.icc is None and image.beside.notes == ["a colour profile that is cut off left out"], fmt
        assert decode(saved(Image.fromarray(FLAT), fmt, icc_profile=SRGB + bytes(3))).icc == SRGB + bytes(3), fmt
