"""Takes a PNG apart: the chunks that its pixels need, and what is beside them.

The decoder gets the former alone. An ancillary chunk that is damaged, or larger than its bound, is left out and said to
be; it costs no image.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from bfr_models.errors import RowError
from tasks.images.beside import Beside
from tasks.images.exif_block import plausible
from tasks.images.jpeg_segments import iptc_of
from tasks.images.limits import MAX_BLOCK, MAX_SEGMENTS

SIGNATURE = b"\x89PNG\r\n\x1a\n"
XMP_KEY = b"XML:com.adobe.xmp"
IPTC_KEYS = (b"Raw profile type iptc", b"Raw profile type 8bim")
_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_COLOUR = (b"gAMA", b"cHRM", b"sRGB", b"cICP", b"sBIT")
_FRAMES = (b"acTL", b"fcTL", b"fdAT")
_OLD_PIXELS = (b"bKGD", b"hIST", b"sPLT")  # about the palette or a background that the output does not have


@dataclass(frozen=True)
class Header:
    """IHDR."""

    width: int
    height: int
    depth: int
    colour: int


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def resolution(x: float, y: float) -> tuple[bytes, bytes]:
    """The chunk for a resolution in pixels per inch. It counts them per metre (unit 1); an inch is 0.0254 m."""
    return b"pHYs", struct.pack(">IIB", round(x / 0.0254), round(y / 0.0254), 1)


def header_of(data: bytes) -> Header:
    """What the first chunk says. RowError `undecodable` if it is not IHDR."""
    if data[12:16] != b"IHDR" or len(data) < 26:
        raise RowError("undecodable", "expected a PNG that starts with IHDR, found another chunk or none")
    return Header(*struct.unpack_from(">IIBB", data, 16))


def split_png(data: bytes) -> tuple[bytes, Beside]:
    """The PNG without what its decoder does not need, and that. RowError `undecodable` if a chunk that it does need has
    a wrong checksum, or is cut off."""
    beside, kept = Beside(), [SIGNATURE]
    for kind, start, stop, sound in _chunks(data):
        if kind in _CRITICAL:
            if not sound:
                raise RowError(
                    "undecodable", f"expected a whole PNG, found its chunk {kind.decode()} cut off or with a wrong CRC"
                )
            kept.append(data[start:stop])
        elif not sound:
            beside.left_out(f"a damaged chunk {_printable(kind)}")
        elif kind == b"tRNS":
            kept.append(data[start:stop])
        else:
            _note(kind, data[start + 8 : stop - 4], beside)
    return b"".join(kept), beside


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int, bool]]:
    """Kind, start, end and soundness of each chunk up to IEND."""
    at, others = len(SIGNATURE), 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        stop = at + 12 + length
        crc = data[stop - 4 : stop]
        sound = stop <= len(data) and zlib.crc32(memoryview(data)[at + 4 : stop - 4]) == int.from_bytes(crc)
        others += kind not in _CRITICAL
        if others > MAX_SEGMENTS:
            raise RowError("undecodable", f"expected a PNG of at most {MAX_SEGMENTS} chunks, found more")
        yield kind, at, stop, sound
        if kind == b"IEND":
            return
        at = stop


def _note(kind: bytes, body: bytes, beside: Beside) -> None:
    """Keeps what an ancillary chunk holds, if it is known and within its bound."""
    if len(body) > MAX_BLOCK:
        beside.left_out(f"{_printable(kind)} of {len(body)} bytes")
    elif kind == b"iCCP":
        beside.icc = beside.icc or _inflated(body.partition(b"\0")[2][1:])
        if beside.icc is None:
            beside.left_out("a colour profile that is damaged or too large")
    elif kind == b"eXIf":
        beside.exif = b"Exif\0\0" + body.removeprefix(b"Exif\0\0")
    elif kind == b"pHYs" and len(body) == 9:
        x, y, unit = struct.unpack(">IIB", body)
        beside.dpi = plausible(x * 0.0254, y * 0.0254) if unit == 1 else None  # an inch is 0.0254 m
    elif kind in _TEXTS:
        _note_text(kind, body, beside)
    elif kind in _COLOUR:
        beside.colour.append((kind, body))
    elif kind == b"acTL" and len(body) == 8:
        beside.n_frames = max(1, int.from_bytes(body[:4]))
    elif kind not in (*_FRAMES, *_OLD_PIXELS, b"acTL", b"pHYs"):
        beside.left_out(f"chunk {_printable(kind)}")


def _note_text(kind: bytes, body: bytes, beside: Beside) -> None:
    key, _, rest = body.partition(b"\0")
    name = _printable(key[:80])
    value: bytes | None = rest
    if kind == b"zTXt":
        value = _inflated(rest[1:])
    elif kind == b"iTXt":
        text = rest[2:].split(b"\0", 2)
        value = (_inflated(text[2]) if rest[:1] == b"\1" else text[2]) if len(text) == 3 else None
    if value is None:
        beside.left_out(f"a text ({name}) that is damaged or too large")
    elif key == XMP_KEY:
        beside.xmp = beside.xmp or value
    elif key in IPTC_KEYS:
        beside.iptc = beside.iptc or iptc_of(_from_raw_profile(value) or b"")
    elif key in (b"Raw profile type exif", b"Raw profile type APP1"):
        beside.exif = beside.exif or _from_raw_profile(value)
    elif key == b"Raw profile type xmp":
        beside.xmp = beside.xmp or _from_raw_profile(value)
    else:
        beside.texts.append((kind, body))


def _inflated(data: bytes) -> bytes | None:
    """Inflated bytes; None if they are broken or more than `MAX_BLOCK`."""
    inflater = zlib.decompressobj()
    try:
        out = inflater.decompress(data, MAX_BLOCK)
    except zlib.error:
        return None
    return out if inflater.eof else None


def _from_raw_profile(value: bytes) -> bytes | None:
    """ImageMagick's way to write bytes as text: a name, a length, and lines of hexadecimal digits."""
    try:
        _, _, digits = value.strip().split(b"\n", 2)
        return bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        return None


def raw_profile(kind: bytes, data: bytes) -> bytes:
    """Bytes as ImageMagick writes them into a text."""
    digits = data.hex().encode()
    lines = b"\n".join(digits[start : start + 72] for start in range(0, len(digits), 72))
    return b"\n" + kind + b"\n" + b"%8d\n" % len(data) + lines + b"\n"


def _printable(name: bytes) -> str:
    return "".join(c if c.isprintable() else "?" for c in name.decode("latin-1"))
