"""Readers of AVIF, JPEG XL and JPEG 2000 (imagecodecs) and of HEIF (pi-heif, extra `formats`).

Their files say how large they are, before anything is decoded. What turns the image stands in the container, and each
decoder applies it but AVIF's; EXIF's own orientation says the same once more, and counts for nothing.
"""

from __future__ import annotations

import io
import struct
from contextlib import suppress
from typing import Any

import numpy as np
from PIL import Image

from bfr_models.errors import RowError
from tasks.images.beside import Beside
from tasks.images.boxes import JxlHeader, av1_depth, boxes, cicp, coding_of
from tasks.images.channels import Channels, of_levels
from tasks.images.exif_block import plausible
from tasks.images.extras import of_extra
from tasks.images.limits import MAX_BLOCK, check_size
from tasks.images.metadata import beside_pillow, settle
from tasks.images.sixteen_bit import full_range

Read = tuple[Channels, Beside, int]
_JXL_BOXES = b"\0\0\0\x0cJXL \r\n\x87\n"
_XMP = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_EXIF = b"JpgTiffExif->JP2"
_IPTC = bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38")
_SRGB, _GREY = 16, 17  # enumerated colour spaces of JPEG 2000
_MAX_COMPONENTS = 4


def read_avif(data: bytes, max_pixels: int) -> Read:
    """An AVIF of 8, 10 or 12 bits; of a sequence the first image."""
    import imagecodecs

    image = Image.open(io.BytesIO(data), formats=["AVIF"])
    check_size(*image.size, max_pixels)
    beside = beside_pillow(image)
    levels = np.asarray(imagecodecs.avif_decode(data, index=0 if beside.n_frames > 1 else None, numthreads=1))
    _note_coding(data, beside)
    return _channels(full_range(levels, av1_depth(data)), beside), beside, settle(beside)


def avif_size(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data), formats=["AVIF"]) as image:
        return image.size


def read_heif(data: bytes, max_pixels: int) -> Read:
    """A HEIF of 8, 10 or 12 bits; of several images the primary one."""
    image = _opened_heif(data)
    width, height = image.size
    check_size(width, height, max_pixels)
    info = image.info
    beside = Beside(icc=info.get("icc_profile") or None, exif=info.get("exif") or None, xmp=info.get("xmp") or None)
    beside.n_frames = len(image)
    if info.get("depth_images"):
        beside.left_out("a map of depths")
    if beside.exif and not beside.exif.startswith(b"Exif\0\0"):
        beside.exif = b"Exif\0\0" + beside.exif
    _note_coding(data, beside)
    levels, depth = np.array(image), int(info.get("bit_depth") or 8)  # a copy: the library frees its memory
    if levels.dtype == np.uint16:  # pi-heif shifts the levels up to 16 bits
        levels = full_range(levels >> (16 - depth), depth)
    settle(beside)
    return _channels(levels, beside, premultiplied="a" in image.mode), beside, 1


def heif_size(data: bytes) -> tuple[int, int]:
    width, height = _opened_heif(data).size
    return width, height


def _opened_heif(data: bytes) -> Any:
    return of_extra("pi_heif", "HEIF").open_heif(data, convert_hdr_to_8bit=False)


def read_jxl(data: bytes, max_pixels: int) -> Read:
    """A JPEG XL of whole numbers."""
    import imagecodecs

    header = JxlHeader(_codestream(data))
    check_size(header.width, header.height, max_pixels)
    if header.floats or header.depth > 16:
        raise RowError("undecodable", f"expected a JPEG XL of 1 to 16 bits, found {header.depth} or floats")
    levels = np.asarray(imagecodecs.jpegxl_decode(data, index=0 if header.animated else None, numthreads=1))
    levels = levels if levels.ndim < 4 else levels[0]
    beside = Beside(n_frames=2 if header.animated else 1)
    if header.coding is None:
        beside.left_out("a colour profile, or another description of colours than sRGB's")
    elif (chunk := cicp(*header.coding)) is not None:
        beside.colour.append(chunk)
    for outer, start, stop in boxes(data) if data.startswith(_JXL_BOXES) else ():
        kind, body = _unpacked(outer, data[start:stop]) if outer in (b"Exif", b"xml ", b"brob") else (outer, b"")
        if len(body) > MAX_BLOCK:
            beside.left_out(f"{kind.decode('latin-1').strip()} of more than {MAX_BLOCK} bytes")
        elif kind == b"Exif":
            beside.exif = b"Exif\0\0" + body[4 + int.from_bytes(body[:4]) :]
        elif kind == b"xml ":
            beside.xmp = body
        elif body:
            beside.left_out(f"box {kind.decode('latin-1').strip()}")
    if levels.dtype == np.uint16 and not header.depth:
        raise RowError("undecodable", "expected an animated JPEG XL of 8 bits, found more")
    settle(beside)
    depth = header.depth or 8
    return _channels(full_range(levels, max(depth, 8) if levels.dtype == np.uint8 else depth), beside), beside, 1


def jpeg_of_jxl(data: bytes, max_pixels: int) -> bytes | None:
    """The JPEG of which a JPEG XL was made without loss, to the byte; None if it was made of another image."""
    import imagecodecs

    if not any(kind == b"jbrd" for kind, _, _ in boxes(data)):
        return None
    header = JxlHeader(_codestream(data))
    check_size(header.width, header.height, max_pixels)
    with suppress(imagecodecs.JpegxlError):
        return bytes(imagecodecs.jpegxl_decode_jpeg(data))  # type: ignore[call-arg] # of the stub, not of the function
    return None


def _unpacked(kind: bytes, body: bytes) -> tuple[bytes, bytes]:
    """The kind and content of a box of metadata, of one that is compressed (brob) too; a bit more than `MAX_BLOCK` for
    what is larger, or damaged."""
    import imagecodecs

    if kind != b"brob":
        return kind, body
    try:
        return body[:4], bytes(imagecodecs.brotli_decode(body[4:], out=MAX_BLOCK))
    except imagecodecs.BrotliError:
        return body[:4], bytes(MAX_BLOCK + 1)


def jxl_size(data: bytes) -> tuple[int, int]:
    header = JxlHeader(_codestream(data))
    return header.width, header.height


def _codestream(data: bytes) -> bytes:
    if not data.startswith(_JXL_BOXES):
        return data
    for kind, start, _ in boxes(data):
        if kind in (b"jxlc", b"jxlp"):
            return data[start + (4 if kind == b"jxlp" else 0) :][:96]
    raise ValueError("expected a codestream")


def read_jp2(data: bytes, max_pixels: int) -> Read:
    """A JPEG 2000 of 1 to 16 bits, grey or RGB, with or without alpha."""
    import imagecodecs

    width, height, depths = _siz(data)
    check_size(width, height, max_pixels)
    if len(depths) > _MAX_COMPONENTS or len(set(depths)) > 1 or not 1 <= depths[0] <= 16:
        raise RowError(
            "undecodable",
            f"expected a JPEG 2000 of up to 4 channels of the same 1 to 16 bits without sign, found {depths}",
        )
    beside, space = Beside(), 0
    for kind, start, stop in boxes(data) if data[4:8] == b"jP  " else ():
        if kind == b"jp2h":
            space = _note_header(data, start, stop, beside)
        elif kind == b"uuid" and stop - start <= MAX_BLOCK:
            what, body = data[start : start + 16], data[start + 16 : stop]
            if what == _XMP:
                beside.xmp = body
            elif what == _EXIF:
                beside.exif = b"Exif\0\0" + body.removeprefix(b"Exif\0\0")
            elif what == _IPTC:
                beside.iptc = body
            else:
                beside.left_out("a block of another kind")
        elif kind in (b"xml ", b"jp2i", b"uinf", b"uuid"):
            beside.left_out(f"box {kind.decode().strip()}")
    if space not in (0, _SRGB, _GREY):
        raise RowError("undecodable", f"expected a JPEG 2000 in grey or RGB, found colour space {space}")
    levels = np.asarray(imagecodecs.jpeg2k_decode(data, numthreads=1))
    settle(beside)
    return _channels(full_range(levels, depths[0]), beside), beside, 1


def jp2_size(data: bytes) -> tuple[int, int]:
    return _siz(data)[:2]


def _siz(data: bytes) -> tuple[int, int, list[int]]:
    """Width, height and bits per component (0 for signed ones) by the codestream's first segment."""
    at = next((start for kind, start, _ in boxes(data) if kind == b"jp2c"), 0) if data[4:8] == b"jP  " else 0
    if data[at : at + 4] != b"\xff\x4f\xff\x51":
        raise ValueError("expected a codestream")
    right, low, left, top = struct.unpack_from(">4I", data, at + 8)
    (count,) = struct.unpack_from(">H", data, at + 40)
    parts = [data[at + 42 + 3 * i : at + 45 + 3 * i] for i in range(min(count, _MAX_COMPONENTS + 1))]
    depths = [0 if part[0] & 0x80 or part[1:] != b"\1\1" else 1 + part[0] for part in parts]
    return right - left, low - top, depths


def _note_header(data: bytes, start: int, stop: int, beside: Beside) -> int:
    """Profile and resolution; returns the enumerated colour space, 0 if there is none."""
    space = 0
    for kind, at, end in boxes(data, start, stop):
        if kind == b"colr" and data[at] == 1 and end - at >= 7:
            space = int.from_bytes(data[at + 3 : at + 7])
        elif kind == b"colr" and data[at] in (2, 3) and end - at <= MAX_BLOCK:
            beside.icc = data[at + 3 : end]
        elif kind == b"res ":
            for which, place, _ in boxes(data, at, end):
                down, below, across, under, power_down, power = struct.unpack_from(">4H2b", data, place)
                if which == b"resc" and below and under:
                    metre = 0.0254
                    beside.dpi = plausible(
                        across / under * 10.0**power * metre, down / below * 10.0**power_down * metre
                    )
    return space


def _note_coding(data: bytes, beside: Beside) -> None:
    if beside.icc is None and (chunk := coding_of(data)) is not None:
        beside.colour.append(chunk)


def _channels(levels: Any, beside: Beside, *, premultiplied: bool = False) -> Channels:
    """(H, W) or (H, W, 1 to 4) levels of the full range."""
    if premultiplied:
        beside.notes.append("colours are multiplied by their alpha")
    if levels.ndim == 2 or levels.shape[2] == 1:
        return of_levels(levels if levels.ndim == 2 else levels[..., 0], None, "L", None)
    count = levels.shape[2]
    colours = levels[..., 0] if count == 2 else levels[..., :3]
    alpha = np.ascontiguousarray(levels[..., -1]) if count in (2, 4) else None
    return of_levels(np.ascontiguousarray(colours), alpha, "L" if count == 2 else "RGB", None)
