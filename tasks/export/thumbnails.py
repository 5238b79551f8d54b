"""Takes the thumbnails out of EXIF and Photoshop blocks: they show the old pixels."""

from __future__ import annotations

import struct

from tasks.export.larger import larger_photoshop

_JPEG_OFFSET, _JPEG_LENGTH, _STRIP_OFFSETS, _STRIP_LENGTHS = 513, 514, 273, 279
_PHOTOSHOP_RESOLUTION = 1005  # an image resource
_PHOTOSHOP_THUMBNAILS = (1033, 1036)  # image resources of Photoshop 4 and of 5 and later


def without_exif_thumbnail(tiff: bytes) -> bytes:
    """An EXIF block (from its byte order on) without IFD1 and its image. All else stays at its offset, since maker
    notes may count from the start of the block. A block that does not read stays as it is."""
    try:
        order = {b"II": "<", b"MM": ">"}[tiff[:2]]
        first = struct.unpack_from(f"{order}I", tiff, 4)[0]
        link = first + 2 + 12 * struct.unpack_from(f"{order}H", tiff, first)[0]
        second = struct.unpack_from(f"{order}I", tiff, link)[0]
        if not second:
            return tiff
        at, length = _image_in(tiff, order, second)
    except (KeyError, struct.error):
        return tiff
    block = bytearray(tiff)
    block[link : link + 4] = bytes(4)
    if length and link + 4 <= at and at + length <= len(tiff):  # not over the directory, whatever a hostile block says
        block[at : at + length] = bytes(length)
        if at + length == len(tiff):
            del block[at:]
    return bytes(block)


def _image_in(tiff: bytes, order: str, directory: int) -> tuple[int, int]:
    """Offset and length of the image that a directory describes; (0, 0) if there is none in one piece."""
    count = struct.unpack_from(f"{order}H", tiff, directory)[0]
    values = {}
    for i in range(count):
        tag, kind, number = struct.unpack_from(f"{order}HHI", tiff, directory + 2 + 12 * i)
        if number == 1 and kind in (3, 4):
            letter = "H" if kind == 3 else "I"
            values[tag] = struct.unpack_from(order + letter, tiff, directory + 2 + 12 * i + 8)[0]
    for start, length in ((_JPEG_OFFSET, _JPEG_LENGTH), (_STRIP_OFFSETS, _STRIP_LENGTHS)):
        if start in values and length in values:
            return values[start], values[length]
    return 0, 0


def without_photoshop_thumbnail(resources: bytes, factor: int = 1) -> bytes:
    """A list of Photoshop's image resources without its thumbnails, and with `factor` times its resolution. A list that
    does not read stays as it is."""
    kept: list[bytes] = []
    at = 0
    while at < len(resources):
        try:
            kind, name = struct.unpack_from(">4xHB", resources, at)
            body = at + 7 + name + (name + 1) % 2  # the name with its length is padded to an even number of bytes
            (length,) = struct.unpack_from(">I", resources, body)
        except struct.error:
            return resources if resources[at:].strip(b"\0") else b"".join([*kept, resources[at:]])
        stop = body + 4 + length + length % 2
        if resources[at : at + 4] not in (b"8BIM", b"8BPS", b"MeSa", b"AgHg", b"PHUT", b"DCSR"):
            return resources
        if kind == _PHOTOSHOP_RESOLUTION:
            kept.append(resources[at : body + 4] + larger_photoshop(resources[body + 4 : stop], factor))
        elif kind not in _PHOTOSHOP_THUMBNAILS:
            kept.append(resources[at:stop])
        at = stop
    return b"".join(kept)
