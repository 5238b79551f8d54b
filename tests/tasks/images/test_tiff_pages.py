"""A TIFF of several pages becomes one image per page, unless a page is broken."""

from __future__ import annotations

import io
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks.images.codec import decode
from tasks.images.tiff_pages import split_pages
from tests.support import portrait


def multipage(pages: list[Image.Image], **options: Any) -> bytes:
    pages[0].save(file := io.BytesIO(), "TIFF", save_all=True, append_images=pages[1:], **options)
    return file.getvalue()


def test_pages_with_16_bit_colours_keep_them(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    pages = [np.random.default_rng(i).integers(0, 65535, (20, 30, 3), np.uint16) for i in range(2)]
    data = cv2.imencodemulti(".tiff", pages)[1].tobytes()
    found = [decode(page) for page in split_pages(data)]
    assert len(found) == 2
    for picture_found, page in zip(found, pages, strict=True):
        assert np.array_equal(picture_found.deep, page[..., ::-1])


def _patched(data: bytes, page: int, tag: int, value: int) -> bytes:
    """The little-endian TIFF with one short value of one page changed."""
    (at,) = struct.unpack_from("<I", data, 4)
    for _ in range(page):
        (count,) = struct.unpack_from("<H", data, at)
        (at,) = struct.unpack_from("<I", data, at + 2 + 12 * count)
    (count,) = struct.unpack_from("<H", data, at)
    tags = {struct.unpack_from("<H", data, at + 2 + 12 * i)[0]: at + 2 + 12 * i for i in range(count)}
    return data[: tags[tag] + 8] + struct.pack("<I", value) + data[tags[tag] + 12 :]


def test_a_broken_page_keeps_the_file_in_one_row() -> None:
    data = multipage([Image.fromarray(portrait(i, 24)) for i in range(3)], compression="tiff_lzw")
    assert len(split_pages(data)) == 3
    beyond = _patched(data, 1, 273, len(data) + 1000)
    for broken in (beyond, data[: len(data) * 2 // 3], _patched(data, 2, 259, 32895)):
        assert split_pages(broken) == [broken]


def test_thumbnails_and_masks_are_no_pages() -> None:
    small, page = Image.fromarray(portrait(1, 12)), Image.fromarray(portrait(1, 24))
    page.save(file := io.BytesIO(), "TIFF", save_all=True, append_images=[small], tiffinfo={254: 0})
    data = file.getvalue()
    assert len(split_pages(data)) == 2
    marked = _patched(data, 1, 254, 1)
    assert split_pages(marked) == [marked]


@pytest.mark.filterwarnings("ignore")
def test_page_lists_without_end_and_shared_pages_cost_nothing() -> None:
    data = multipage([Image.fromarray(portrait(1, 24))])
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    link = at + 2 + 12 * count
    circle = data[:link] + struct.pack("<I", at) + data[link + 4 :]
    shared = bytearray(data)
    for _ in range(3000):  # directories that all name the same picture data
        shared[link : link + 4] = struct.pack("<I", len(shared))
        link = len(shared) + 2 + 12 * count
        shared += data[at : at + 2 + 12 * count] + bytes(4)
    for hostile in (circle, bytes(shared)):
        began = time.thread_time()
        assert split_pages(hostile) == [hostile]
        assert time.thread_time() - began < 5
