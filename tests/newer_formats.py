"""Files of AVIF, JPEG XL, JPEG 2000, DICOM, PDF and DNG, made here, each with the pixels that went in."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from tests.zoo import DEEP, FLAT, Animal, Levels

_SHAPES: dict[str, tuple[Any, ...]] = {"grey": (..., 0), "rgb": (..., slice(0, 3)), "rgba": (..., slice(0, 4))}


def spread(levels: Levels, bits: int) -> Levels:
    """Levels of so many bits over the whole range of 8 or 16."""
    if bits in (8, 16):
        return levels
    top, white = (255 if bits < 8 else 65535), 2**bits - 1
    return ((levels.astype(np.int64) * top + white // 2) // white).astype(np.uint8 if bits < 8 else np.uint16)


def newer() -> Iterator[Animal]:
    """Format x depth x channels, all without loss."""
    for bits in (8, 10, 12, 16):
        for shape, part in _SHAPES.items():
            full = np.dstack([DEEP, DEEP[..., 0]])[part]
            stored = np.ascontiguousarray((full >> 8).astype(np.uint8) if bits == 8 else full >> (16 - bits))
            wide = spread(stored, bits)
            colours, alpha = (wide[..., :3], wide[..., 3]) if shape == "rgba" else (wide, None)
            depth = {} if bits in (8, 16) else {"bitspersample": bits}
            for name, data in _encoded(stored, bits, depth):
                yield Animal(f"{name} {shape} {bits}", data, colours, alpha)


def _encoded(stored: Levels, bits: int, depth: dict[str, int]) -> Iterator[tuple[str, bytes]]:
    if bits < 16:
        yield "avif", imagecodecs.avif_encode(stored, level=100, **depth)
    for boxed in (False, True):
        yield f"jxl {boxed}", imagecodecs.jpegxl_encode(stored, lossless=True, usecontainer=boxed, effort=1, **depth)
    for form in ("jp2", "j2k"):
        yield form, imagecodecs.jpeg2k_encode(stored, level=0, codecformat=form, reversible=True, **depth)


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def exif(orientation: int) -> bytes:
    """A block with nothing but an orientation, as it stands behind "Exif\\0\\0"."""
    return b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 274, 3, 1, orientation, 0, 0)


def jxl_with_boxes(orientation: int, xmp: bytes) -> bytes:
    data = imagecodecs.jpegxl_encode(FLAT, lossless=True, usecontainer=True, effort=1)
    return bytes(data) + box(b"Exif", bytes(4) + exif(orientation)) + box(b"xml ", xmp)


def jp2_with_boxes(xmp: bytes, icc: bytes) -> bytes:
    """With XMP, a profile, and 200 x 300 dpi across and down."""
    data = bytes(imagecodecs.jpeg2k_encode(FLAT, level=0, codecformat="jp2", reversible=True))
    at = data.index(b"jp2h") - 4
    (size,) = struct.unpack_from(">I", data, at)
    head = data[at + 8 : at + 8 + 22]  # ihdr
    metre = [round(dpi / 0.0254 * 10) for dpi in (300, 200)]
    resc = box(b"resc", struct.pack(">4H2b", metre[0] // 10, 1, metre[1] // 10, 1, 0, 0))
    header = box(b"jp2h", head + box(b"colr", b"\2\0\0" + icc) + box(b"res ", resc))
    note = box(b"uuid", bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + xmp)
    return data[:at] + header + note + data[at + size :]


def avif_turned(orientation: int, xmp: bytes, icc: bytes) -> tuple[bytes, Image.Image]:
    """Through Pillow, which writes the orientation as AVIF has it; and the pixels, upright."""
    stored = Image.fromarray(FLAT)
    stored.save(
        file := io.BytesIO(), "AVIF", quality=100, subsampling="4:4:4", exif=b"Exif\0\0" + exif(orientation), xmp=xmp,
        icc_profile=icc,
    )  # fmt: skip
    return file.getvalue(), stored


def dicom(levels: Levels, bits: int, *, compressed: bytes | None = None, **fields: Any) -> bytes:
    """A file with one frame; `fields` are DICOM's own."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    meta.TransferSyntaxUID = JPEGBaseline8Bit if compressed else ExplicitVRLittleEndian
    found = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    found.Rows, found.Columns = levels.shape[:2]
    found.SamplesPerPixel = 1 if levels.ndim == 2 else 3
    found.PhotometricInterpretation = "MONOCHROME2" if levels.ndim == 2 else "RGB"
    found.BitsAllocated, found.BitsStored, found.HighBit = 8 * levels.dtype.itemsize, bits, bits - 1
    found.PixelRepresentation = int(np.issubdtype(levels.dtype, np.signedinteger))
    if levels.ndim == 3:
        found.PlanarConfiguration = 0
    found.PixelData = encapsulate([compressed]) if compressed else levels.tobytes()
    for name, value in fields.items():
        setattr(found, name, value)
    if compressed:
        found["PixelData"].VR = "OB"
    found.save_as(file := io.BytesIO(), enforce_file_format=True)
    return file.getvalue()


def pdf(*pages: bytes | str) -> bytes:
    """One page of 72 x 108 points for each JPEG, or for each text of drawing operators."""
    count = len(pages)
    kids = " ".join(f"{3 + 3 * i} 0 R" for i in range(count))
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", f"<</Type/Pages/Count {count}/Kids[{kids}]>>".encode()]
    for i, page in enumerate(pages):
        drawn = "q 72 0 0 108 0 0 cm /I Do Q" if isinstance(page, bytes) else page
        at = 3 + 3 * i
        objects += [
            f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 72 108]/Contents {at + 1} 0 R"
            f"/Resources<</XObject<</I {at + 2} 0 R>>>>>>".encode(),
            b"<</Length %d>>stream\n%s\nendstream" % (len(drawn), drawn.encode()),
            _image_object(page) if isinstance(page, bytes) else b"null",
        ]
    out, places = bytearray(b"%PDF-1.4\n"), []
    for number, body in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    return bytes(out + b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, start))


def _image_object(jpeg: bytes) -> bytes:
    with Image.open(io.BytesIO(jpeg)) as image:
        head = (
            f"<</Type/XObject/Subtype/Image/Width {image.width}/Height {image.height}/BitsPerComponent 8"
            f"/ColorSpace/{'DeviceGray' if image.mode == 'L' else 'DeviceRGB'}/Filter/DCTDecode"
            f"/Length {len(jpeg)}>>stream\n"
        )
    return head.encode() + jpeg + b"\nendstream"


_CAMERA: list[tuple[Any, ...]] = [
    (50706, "B", 4, (1, 4, 0, 0), True), (50708, "s", 0, "Test Camera", True), (50778, "H", 1, 21, True),
    (50721, "2i", 9, (1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1), True),
    (50728, "2I", 3, (1, 1, 1, 1, 1, 1), True), (271, "s", 0, "Test", True), (272, "s", 0, "Camera", True),
]  # fmt: skip
_RAW: list[tuple[Any, ...]] = [
    (33421, "H", 2, (2, 2), True), (33422, "B", 4, (0, 1, 1, 2), True), (50717, "I", 1, 65535, True),
]  # fmt: skip
_COLOUR_FILTERS = (33421, 33422)
_SCENE = np.full((48, 64), 9000, np.uint16)


def dng() -> bytes:
    """Raw data of a flat grey scene, 64 x 48 px."""
    tags = [*_CAMERA, *_RAW]
    tifffile.imwrite(file := io.BytesIO(), _SCENE, photometric="cfa", metadata=None, extratags=tags, subfiletype=0)
    return file.getvalue()


def monochrome_dng() -> bytes:
    """The same of a sensor without colour filters; tifffile writes no such files, so its kind is put in afterwards."""
    tags = [*_CAMERA, *(tag for tag in _RAW if tag[0] not in _COLOUR_FILTERS)]
    tifffile.imwrite(
        file := io.BytesIO(), _SCENE, photometric="minisblack", metadata=None, extratags=tags, subfiletype=0
    )
    black_is_zero, linear_raw = (struct.pack("<HHIH", 262, 3, 1, kind) for kind in (1, 34892))
    data = file.getvalue()
    assert data.count(black_is_zero) == 1
    return data.replace(black_is_zero, linear_raw)


def dng_with_preview(preview: bytes, orientation: int) -> bytes:
    """The same behind a JPEG of whatever size, as cameras write it."""
    with Image.open(io.BytesIO(preview)) as image:
        shape = (image.height, image.width, 3)
    with tifffile.TiffWriter(file := io.BytesIO()) as writer:
        writer.write(
            iter([preview]), shape=shape, dtype=np.uint8, photometric="ycbcr", compression="jpeg", subsampling=(1, 1),
            rowsperstrip=shape[0], subifds=1, subfiletype=1, metadata=None,
            extratags=[*_CAMERA, (274, "H", 1, orientation, True)],
        )  # fmt: skip
        writer.write(_SCENE, photometric="cfa", metadata=None, extratags=_RAW, subfiletype=0)
    return file.getvalue()
