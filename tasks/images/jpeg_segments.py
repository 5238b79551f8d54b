"""Takes a JPEG apart: the segments that its pixels need, and what is beside them.

The decoder gets the former alone. So nothing beside the pixels can cost the image: no second picture behind it (MPF, as
phones and stereo cameras write), no broken profile, no preview.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from tasks.images.beside import Beside
from tasks.images.limits import MAX_BLOCK, MAX_SEGMENTS

_SEGMENT = re.compile(rb"\xff([\x02-\xcf\xd9-\xfe])")  # all but the markers without a length: TEM, RST0-7, SOI
_END, _SCAN, _COMMENT = 0xD9, 0xDA, 0xFE
_APP0, _APP1, _APP2, _APP13, _APP14 = 0xE0, 0xE1, 0xE2, 0xED, 0xEE
_APPLICATION = range(0xE0, 0xF0)
_XMP, _MORE_XMP = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
_PHOTOSHOP, _IPTC = b"Photoshop 3.0\0", 0x0404
_PARTS = {1: "a large preview", 2: "a panorama's part", 3: "another view", 5: "a gain map"}


def count_scans(data: bytes, limit: int) -> int:
    """How many scans a JPEG has; `limit` if there are more, or more than `MAX_SEGMENTS` segments.

    A decoder passes over the whole image once a scan, so a small file with many scans can keep it busy for very long.
    """
    scans = at = 0
    for _ in range(MAX_SEGMENTS):
        found = _SEGMENT.search(data, at)
        if found is None or found[1][0] == _END:
            return scans
        scans += found[1][0] == _SCAN
        if scans == limit:
            return limit
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2])  # then a scan's data, skipped by search
    return limit


def split_jpeg(data: bytes) -> tuple[bytes, Beside]:
    """The JPEG without what its decoder does not need, and that."""
    beside, kept, icc, photoshop = Beside(), [data[:2]], dict[int, bytes](), b""
    rest = 2
    for kind, start, stop in _segments(data):
        if kind == _SCAN:
            rest = start
            break
        body = data[start + 4 : stop]
        if kind == _COMMENT:
            beside.comments.append(body)
        elif kind in _APPLICATION and not (kind == _APP0 and body[:5] == b"JFIF\0") and kind != _APP14:
            _note(kind, body, beside, icc)
            photoshop += body[len(_PHOTOSHOP) :] if kind == _APP13 and body.startswith(_PHOTOSHOP) else b""
        else:
            kept.append(data[start : start + 2] + data[start + 2 : stop])
    else:
        return data, beside  # no scan: let the decoder say what is wrong
    beside.icc = b"".join(icc[number] for number in sorted(icc)) or None
    beside.iptc = iptc_of(photoshop)
    return b"".join([*kept, memoryview(data)[rest:]]), beside


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment up to the first scan."""
    at = 2
    for _ in range(MAX_SEGMENTS):
        found = _SEGMENT.search(data, at)
        if found is None or found[1][0] == _END:
            return
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2])
        yield found[1][0], found.start(), at
        if found[1][0] == _SCAN:
            return


def _note(kind: int, body: bytes, beside: Beside, icc: dict[int, bytes]) -> None:
    """Keeps what an application segment holds, if it is known."""
    if kind == _APP1 and body.startswith(b"Exif\0") and beside.exif is None:
        beside.exif = b"Exif\0\0" + body[6:]
    elif kind == _APP1 and body.startswith(_XMP) and beside.xmp is None:
        beside.xmp = body[len(_XMP) :]
    elif kind == _APP1 and body.startswith(_MORE_XMP):
        beside.left_out("extended XMP")
    elif kind == _APP2 and body.startswith(b"ICC_PROFILE\0"):
        if sum(map(len, icc.values())) <= MAX_BLOCK:
            icc.setdefault(body[12] if len(body) > 12 else 0, body[14:])
    elif kind == _APP2 and body.startswith(b"MPF\0"):
        _note_pictures(body[4:], beside)


def _note_pictures(mpf: bytes, beside: Beside) -> None:
    """The further pictures behind this one, by CIPA's Multi-Picture Format."""
    try:
        order = {b"II": "<", b"MM": ">"}[mpf[:2]]
        (at,) = struct.unpack_from(order + "I", mpf, 4)
        (count,) = struct.unpack_from(order + "H", mpf, at)
        tags = {}
        for number in range(min(count, 100)):
            tag, _, size, value = struct.unpack_from(order + "HHII", mpf, at + 2 + 12 * number)
            tags[tag] = (size, value)
        size, start = tags[0xB002]
        kinds = [struct.unpack_from(order + "I", mpf, start + 16 * i)[0] & 0xFFFFFF for i in range(size // 16)]
    except (KeyError, struct.error):
        beside.left_out("further pictures")
        return
    beside.n_frames = max(1, len(kinds))
    if names := [_PARTS.get(kind >> 16, "another picture") for kind in kinds[1:]]:
        for name in dict.fromkeys(names):
            beside.left_out(name if names.count(name) == 1 else f"{name} x {names.count(name)}")


def iptc_of(photoshop: bytes) -> bytes | None:
    """The IPTC records among Photoshop's resources, or alone."""
    if photoshop[:1] == b"\x1c":  # each record starts so
        return photoshop
    at = 0
    while photoshop[at : at + 4] == b"8BIM" and at + 7 < len(photoshop):
        kind = int.from_bytes(photoshop[at + 4 : at + 6])
        name = photoshop[at + 6] + 1
        at += 6 + name + name % 2
        size = int.from_bytes(photoshop[at : at + 4])
        if kind == _IPTC:
            return photoshop[at + 4 : at + 4 + size] or None
        at += 4 + size + size % 2
    return None


def photoshop_resource(iptc: bytes) -> bytes:
    """IPTC records as a resource of Photoshop's."""
    return b"8BIM" + struct.pack(">HHI", _IPTC, 0, len(iptc)) + iptc + bytes(len(iptc) % 2)


def iptc_segment(iptc: bytes) -> bytes | None:
    """An APP13 segment of IPTC records; None if they do not fit into one."""
    body = _PHOTOSHOP + photoshop_resource(iptc)
    return b"\xff\xed" + struct.pack(">H", 2 + len(body)) + body if len(body) < 2**16 - 2 else None
