"""Thumbnails go, and nothing else does; broken blocks stay as they are."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.export.thumbnails import without_exif_thumbnail, without_photoshop_thumbnail

THUMBNAIL = b"\xff\xd8 the old pixels \xff\xd9"


def block(order: str, offset: int | None = None, behind: bytes = b"") -> bytes:
    """An EXIF block with an artist, and a thumbnail at an offset or where it is."""
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8)
    first = struct.pack(f"{order}HHHI4sI", 1, 0x013B, 2, 4, b"Ann\0", 26)
    place = 26 + 2 + 24 + 4
    entries = [(513, 4, 1, place if offset is None else offset), (514, 4, 1, len(THUMBNAIL))]
    second = struct.pack(f"{order}H", 2) + b"".join(struct.pack(f"{order}HHII", *entry) for entry in entries) + bytes(4)
    return head + first + second + THUMBNAIL + behind


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_thumbnail_of_exif_goes(order: str) -> None:
    found = without_exif_thumbnail(block(order))
    assert b"old pixels" not in found and found[:22] == block(order)[:22] and found[22:26] == bytes(4)
    note = b"a maker note"
    found = without_exif_thumbnail(block(order, behind=note))
    assert b"old pixels" not in found and found.endswith(note)
    assert len(found) == len(block(order, behind=note)), "what counts offsets must find its place"


@pytest.mark.parametrize("offset", [0, 8, 4, 10_000])
def test_a_hostile_offset_damages_nothing(offset: int) -> None:
    found = without_exif_thumbnail(block("<", offset))
    assert found[:22] == block("<")[:22]


def resource(kind: int, data: bytes, name: bytes = b"") -> bytes:
    label = bytes([len(name)]) + name
    body = struct.pack(">4sH", b"8BIM", kind) + label.ljust(len(label) + len(label) % 2, b"\0")
    return body + struct.pack(">I", len(data)) + data + bytes(len(data) % 2)


def test_the_thumbnails_of_photoshop_go() -> None:
    iptc, path = resource(1028, b"caption"), resource(2000, b"path", b"a name")
    assert without_photoshop_thumbnail(iptc + resource(1036, b"odd") + resource(1033, b"even") + path) == iptc + path
    assert without_photoshop_thumbnail(iptc + b"\0\0") == iptc + b"\0\0"
    broken = iptc + resource(1036, b"x")[:-7]
    assert without_photoshop_thumbnail(broken)[: len(iptc)] == iptc


@given(st.binary(max_size=200))
def test_garbage_is_taken(data: bytes) -> None:
    without_exif_thumbnail(b"II*\0" + data)
    without_exif_thumbnail(data)
    without_photoshop_thumbnail(data)
