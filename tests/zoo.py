"""A zoo of images: every format, depth, layout and structure that the reader claims, each with the pixels that went in.

Nothing here is read by the code under test; what wrote a file says what is in it.
"""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from tests.hostile_images import chunk

HEIGHT, WIDTH = 45, 70
_Y, _X = np.mgrid[0:HEIGHT, 0:WIDTH]
DEEP = np.stack([_X * 900, _Y * 1400, (_X + _Y) * 550], axis=-1).astype(np.uint16) + np.uint16(77)
"""(45, 70, 3) uint16 RGB without symmetry, and with low bits that 8 bits cannot hold."""
FLAT = (DEEP >> 8).astype(np.uint8)
Levels = NDArray[Any]


@dataclass(frozen=True)
class Animal:
    """A file, and what it holds: levels of 8 or 16 bits, grey or RGB, and alpha."""

    name: str
    data: bytes
    levels: Levels
    alpha: Levels | None = None
    slack: int = 0
    """How far a level may be off: of what is stored with loss."""


def tiff(levels: Levels, **options: Any) -> bytes:
    tifffile.imwrite(file := io.BytesIO(), levels, metadata=None, **options)
    return file.getvalue()


def pillow(image: Image.Image, fmt: str, **options: Any) -> bytes:
    image.save(file := io.BytesIO(), fmt, **options)
    return file.getvalue()


def tiffs(every: int = 1) -> Iterator[Animal]:
    """Depth x planes x tiles x byte order x compression x predictor x channels x classic and big; all, or each such."""
    number = 0
    grid = itertools.product(
        (FLAT, DEEP), ("contig", "separate"), (None, (16, 32)), "<>", (None, "lzw", "deflate", "packbits", "zstd"),
        (False, True), (1, 3, 4), (False, True),
    )  # fmt: skip
    for source, planes, tile, order, compression, predictor, channels, big in grid:
        if (predictor and compression in (None, "packbits")) or (planes == "separate" and channels == 1):
            continue
        number += 1
        if number % every:
            continue
        stored = {1: source[..., 0], 3: source, 4: np.dstack([source, source[..., 2]])}[channels]
        options: dict[str, Any] = {"planarconfig": planes} if channels > 1 else {}
        options |= {"extrasamples": ["unassalpha"]} if channels == 4 else {}
        data = tiff(
            np.ascontiguousarray(stored.transpose(2, 0, 1)) if planes == "separate" else stored,
            photometric="rgb" if channels > 1 else "minisblack", tile=tile, byteorder=order, compression=compression,
            predictor=predictor, bigtiff=big, rowsperstrip=None if tile else 7, **options,
        )  # fmt: skip
        name = f"tiff {source.dtype} {planes} {tile} {order} {compression} {predictor} {channels} {big}"
        colours = stored if channels == 1 else stored[..., :3]
        yield Animal(name, data, colours, stored[..., 3] if channels == 4 else None)


def odd_tiffs() -> Iterator[Animal]:
    """Other depths, photometric interpretations, compressions and kinds of alpha."""
    grey, deep = FLAT[..., 0], DEEP[..., 0]
    for bits in (1, 2, 3, 4, 5, 6, 7):
        levels, white = grey >> (8 - bits), 2**bits - 1
        wide = ((levels.astype(int) * 255 + white // 2) // white).astype(np.uint8)
        yield Animal(f"tiff {bits} bits", tiff(levels, photometric="minisblack", bitspersample=bits), wide)
    for bits in (9, 10, 12, 14):
        levels, white = DEEP >> (16 - bits), 2**bits - 1
        wide = ((levels.astype(np.int64) * 65535 + white // 2) // white).astype(np.uint16)
        yield Animal(f"tiff {bits} bits", tiff(levels, photometric="rgb", bitspersample=bits), wide)
    for compression in (None, "group3", "group4", "tiff_ccitt", "packbits", "tiff_lzw", "tiff_deflate"):
        page = Image.fromarray(grey).convert("1")
        options = {"compression": compression} if compression else {}
        yield Animal(f"tiff fax {compression}", pillow(page, "TIFF", **options), np.asarray(page.convert("L")))
    yield Animal("tiff white is 0", tiff(255 - grey, photometric="miniswhite"), grey)
    inverse = tiff(65535 - deep, photometric="miniswhite", compression="lzw", predictor=True)
    yield Animal("tiff white is 0, 16 bits", inverse, deep)
    table = (np.arange(256)[None] * np.array([[200], [100], [50]]) % 256 * 257).astype(np.uint16)
    yield Animal(
        "tiff palette", tiff(grey, photometric="palette", colormap=table), (table.T >> 8).astype(np.uint8)[grey]
    )
    few = Image.fromarray(FLAT).quantize(13)
    yield Animal("tiff palette of 13", pillow(few, "TIFF"), np.asarray(few.convert("RGB")))
    yield Animal("tiff grey and alpha, 16 bits", tiff(
        DEEP[..., :2], photometric="minisblack", planarconfig="contig", extrasamples=["unassalpha"]
    ), deep, DEEP[..., 1])  # fmt: skip
    for kind in ([], ["unspecified"], ["unspecified", "unassalpha"]):
        stored = np.dstack([FLAT, *[FLAT[..., i] for i in range(len(kind))]])
        data = tiff(stored, photometric="rgb", planarconfig="contig", extrasamples=kind)
        yield Animal(f"tiff extra {kind}", data, FLAT, stored[..., 4] if len(kind) == 2 else None)
    for compression, source in (("jpeg2000", FLAT), ("jpeg2000", DEEP)):
        yield Animal(
            f"tiff {compression} {source.dtype}", tiff(source, photometric="rgb", compression=compression), source
        )
    smooth = Image.fromarray(FLAT).resize((64, 48), Image.Resampling.BICUBIC)
    for compression, options in (("jpeg", {"photometric": "rgb"}), ("webp", {"photometric": "rgb"})):
        lossy = tiff(np.asarray(smooth), compression=compression, compressionargs={"level": 95}, **options)
        yield Animal(f"tiff {compression}", lossy, np.asarray(smooth), slack=60)
    for sampling in ((1, 1), (2, 1), (2, 2)):
        lossy = tiff(np.asarray(smooth), photometric="rgb", compression="jpeg", subsampling=sampling, tile=(32, 32))
        yield Animal(f"tiff jpeg {sampling}", lossy, np.asarray(smooth), slack=60)
    ink = Image.fromarray(FLAT).convert("CMYK")
    inks, seen = np.asarray(ink), np.asarray(ink.convert("RGB"))
    yield Animal("tiff cmyk", pillow(ink, "TIFF"), seen)
    planes = np.ascontiguousarray(inks.transpose(2, 0, 1))
    separate = tiff(planes, photometric="separated", planarconfig="separate", compression="lzw")
    yield Animal("tiff cmyk in planes", separate, seen)
    yield Animal("tiff cmyk, 16 bits", tiff(inks.astype(np.uint16) * 257, photometric="separated"), seen)


_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def png_of(stored: Levels, depth: int, colour: int, *chunks: tuple[bytes, bytes], interlaced: bool = False) -> bytes:
    """A PNG of (H, W, channels) levels of any depth, by the letter of the standard."""
    height, width = stored.shape[:2]
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    lines = b"".join(_lines(stored[y::dy, x::dx], depth) for y, x, dy, dx in passes)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, body) for kind, body in parts)


def _lines(part: Levels, depth: int) -> bytes:
    if not part.size:
        return b""
    rows = part.reshape(len(part), -1)
    if depth == 16:
        packed = rows.astype(">u2").view(np.uint8).reshape(len(rows), -1)
    else:
        bits = np.unpackbits(rows.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
        packed = np.packbits(bits.reshape(len(rows), -1), axis=-1)
    return b"".join(b"\0" + row.tobytes() for row in packed)


def pngs() -> Iterator[Animal]:
    """Every colour type and depth, interlaced and not, with and without tRNS."""
    kinds = [(0, 1, depth) for depth in (1, 2, 4, 8, 16)] + [(3, 1, depth) for depth in (1, 2, 4, 8)]
    kinds += [(colour, channels, depth) for colour, channels in ((2, 3), (4, 2), (6, 4)) for depth in (8, 16)]
    for (colour, channels, depth), interlaced, clear in itertools.product(kinds, (False, True), (False, True)):
        if clear and colour in (4, 6):
            continue
        white = 2**depth - 1
        stored = (np.dstack([DEEP, DEEP[..., 0]])[..., :channels] >> (16 - depth)).astype(np.uint16)
        key = stored[3, 5]  # the level or colour that tRNS names
        full = stored.astype(np.uint32) * (65535 if depth == 16 else 255) // white
        full = full.astype(np.uint16 if depth == 16 else np.uint8)
        levels, alpha, chunks = full[..., 0] if channels < 3 else full[..., :3], None, list[tuple[bytes, bytes]]()
        if colour == 3:
            table = (np.arange(white + 1)[:, None] * [200, 100, 50] % 256).astype(np.uint8)
            levels = table[stored[..., 0]]
            chunks.append((b"PLTE", table.tobytes()))
        if channels in (2, 4):
            alpha = full[..., -1]
        elif clear and colour == 3:
            seen = (np.arange(white + 1) * 37 % 256).astype(np.uint8)
            alpha = seen[stored[..., 0]]
            chunks.append((b"tRNS", seen.tobytes()))
        elif clear:
            alpha = np.where((stored == key).all(axis=-1), 0, np.iinfo(full.dtype).max).astype(full.dtype)
            chunks.append((b"tRNS", key.astype(">u2").tobytes()))
        data = png_of(stored, depth, colour, *chunks, interlaced=interlaced)
        yield Animal(f"png {colour} {depth} {interlaced} {clear}", data, levels, alpha)


def others() -> Iterator[Animal]:
    """JPEGs, WebPs, BMPs and GIFs."""
    image = Image.fromarray(FLAT)
    few = image.quantize(32)
    palette, grey = np.asarray(few.convert("RGB")), image.convert("L")
    for sampling, progressive in itertools.product((0, 1, 2), (False, True)):
        data = pillow(image, "JPEG", quality=98, subsampling=sampling, progressive=progressive)
        yield Animal(f"jpeg {sampling} {progressive}", data, FLAT, slack=90)
    yield Animal("jpeg grey", pillow(grey, "JPEG", quality=98), np.asarray(grey), slack=30)
    alpha = image.copy()
    alpha.putalpha(grey)
    yield Animal("webp", pillow(image, "WEBP", lossless=True), FLAT)
    yield Animal("webp alpha", pillow(alpha, "WEBP", lossless=True, exact=True), FLAT, np.asarray(grey))
    yield Animal("webp lossy", pillow(image, "WEBP", quality=98), FLAT, slack=90)
    yield Animal("bmp", pillow(image, "BMP"), FLAT)
    yield Animal("bmp palette", pillow(few, "BMP"), palette)
    yield Animal("bmp grey", pillow(grey, "BMP"), np.asarray(grey))
    yield Animal("bmp bilevel", pillow(grey.convert("1"), "BMP"), np.asarray(grey.convert("1").convert("L")))
    yield Animal("gif", pillow(few, "GIF"), palette)
    yield Animal("gif interlaced", pillow(few, "GIF", interlace=1), palette)


def animals() -> Iterator[Animal]:
    """All of them."""
    return itertools.chain(tiffs(), odd_tiffs(), pngs(), others())
