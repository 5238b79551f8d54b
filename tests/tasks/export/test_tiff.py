"""TIFFs are taken apart and put together: what was not restored comes back byte for byte."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from bfr_models.errors import RowError
from tasks.export.notes import Notes
from tasks.export.tiff import count_pages, read_tiff, write_tiff
from tasks.images.codec import decode
from tasks.images.tiff_pages import split_pages
from tests.support import portrait
from tests.tasks.export.edited import EVENT, canvas_of
from tests.tasks.images.test_tiff_pages import multipage

PAGES = [Image.fromarray(portrait(1, 64)), Image.fromarray(portrait(2, 48)).convert("L"), Image.fromarray(portrait(3))]
WHOLE = multipage(PAGES, compression="tiff_lzw", dpi=(300, 150))


def pages_of(data: bytes) -> list[bytes]:
    return [page for page in split_pages(data) if page is not None]


@pytest.mark.parametrize("files", [[WHOLE], pages_of(WHOLE)], ids=["whole", "by page"])
def test_other_pages_keep_their_very_strips(files: list[bytes]) -> None:
    canvas = canvas_of(pages_of(WHOLE)[1])
    out = write_tiff(files, {1: canvas}, EVENT, Notes())
    before, after = read_tiff(WHOLE).directories, read_tiff(out).directories
    assert len(after) == 3
    for number in (0, 2):
        assert after[number].blocks == before[number].blocks and after[number].tags == before[number].tags
    assert np.array_equal(decode(pages_of(out)[1]).pixels[..., 0], canvas.samples[..., 0])
    assert 700 in after[1].tags and 700 not in after[0].tags


def test_smaller_versions_of_a_changed_page_go_and_others_stay() -> None:
    small = Image.fromarray(portrait(1, 16))
    tiff = multipage([PAGES[0], small, PAGES[2], small])
    parts = read_tiff(tiff)
    for number in (1, 3):
        parts.directories[number].tags[254] = (4, struct.pack("<I", 1))
    marked = write_tiff_of(parts)
    assert count_pages(marked) == 2
    out = read_tiff(write_tiff([marked], {0: canvas_of(marked)}, EVENT, Notes()))
    assert [one.number("<", 256) for one in out.directories] == [64, 96, 16]


def write_tiff_of(parts: object) -> bytes:
    from tasks.export import tiff

    return tiff._written(parts)  # type: ignore[arg-type]


def test_sub_directories_and_both_byte_orders_survive() -> None:
    data = multipage([PAGES[0]], tiffinfo={0x8769: {0x9003: "1931:02:03 04:05:06"}})
    big = big_endian(data)
    for file in (data, big):
        out = write_tiff([file], {0: canvas_of(file)}, EVENT, Notes())
        assert out[:2] == file[:2]
        with Image.open(io.BytesIO(out)) as image:
            assert image.getexif().get_ifd(0x8769)[0x9003] == "1931:02:03 04:05:06"
        assert np.array_equal(decode(out).pixels, canvas_of(file).samples)


def big_endian(data: bytes) -> bytes:
    """A little-endian TIFF of 8-bit samples in the other byte order."""
    letters = {3: "H", 4: "I", 5: "I"}
    tiff = read_tiff(data)

    def turn(directory: object) -> None:
        for tag, (kind, values) in directory.tags.items():  # type: ignore[attr-defined]
            if kind in letters:
                count = len(values) // struct.calcsize(letters[kind])
                numbers = struct.unpack(f"<{count}{letters[kind]}", values)
                directory.tags[tag] = (kind, struct.pack(f">{count}{letters[kind]}", *numbers))  # type: ignore[attr-defined]
        for inner in directory.inner.values():  # type: ignore[attr-defined]
            for one in inner:
                turn(one)

    for directory in tiff.directories:
        turn(directory)
    tiff.order = ">"
    return write_tiff_of(tiff)


def test_hostile_files_are_refused() -> None:
    endless = bytearray(WHOLE)
    first = struct.unpack_from("<I", endless, 4)[0]
    count = struct.unpack_from("<H", endless, first)[0]
    struct.pack_into("<I", endless, first + 2 + 12 * count, first)
    for broken in (bytes(endless), WHOLE[:50], b"II*\0", b"no TIFF at all"):
        assert count_pages(broken) == 0
        with pytest.raises(RowError, match="expected a TIFF that can be taken apart"):
            write_tiff([broken], {}, EVENT, Notes())


def test_the_image_below_a_preview_is_the_one_that_changes() -> None:
    large, small = read_tiff(multipage([PAGES[0].resize((480, 480))])), read_tiff(multipage([PAGES[0]]))
    small.directories[0].tags[254] = (4, struct.pack("<I", 1))
    small.directories[0].inner[330] = large.directories
    data, notes = write_tiff_of(small), Notes()
    out = write_tiff([data], {0: canvas_of(data, notes)}, EVENT, notes)
    assert decode(out).pixels.shape == (480, 480, 3)
    assert np.array_equal(decode(out).pixels, canvas_of(data).samples)
    assert any("smaller version of its old pixels" in note for note in notes)
