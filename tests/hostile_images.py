"""Malicious and accidentally broken images."""

from __future__ import annotations

import random
import struct
import zlib

import cv2
import numpy as np

from tests import support

GOOD = support.encoded(support.portrait(1))


def chunk(kind: bytes, body: bytes) -> bytes:
    """A part of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def bombs() -> dict[str, bytes]:
    """Small images with metadata that inflates to 128 MiB."""
    bomb = b"name\0\0" + zlib.compress(bytes(2**27), 9)
    return {
        "bomb in a text chunk": GOOD[:33] + chunk(b"zTXt", bomb) + GOOD[33:],
        "bomb in a text chunk behind": GOOD[:-12] + chunk(b"zTXt", bomb) + GOOD[-12:],
        "bomb in a colour profile": GOOD[:33] + chunk(b"iCCP", bomb) + GOOD[33:],
    }


def with_scans(count: int) -> bytes:
    """A progressive JPEG that repeats its last scan, a refinement."""
    jpeg = support.encoded(support.portrait(2), "jpeg", progressive=True)
    start = jpeg.rindex(b"\xff\xda")
    return jpeg[:-2] + jpeg[start:-2] * (count - jpeg.count(b"\xff\xda")) + jpeg[-2:]


def png(width: int, height: int, data: bytes) -> bytes:
    """A PNG whose header may say anything."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")


def hostile_pictures() -> dict[str, bytes]:
    jpeg = support.encoded(support.portrait(2), "jpeg")
    exif = b"\xff\xe1" + struct.pack(">H", 2 + 65533 - 2) + b"Exif\0\0" + bytes(65533 - 2 - 6)
    endless = b"Exif\0\0II*\0\x08\0\0\0" + b"\xff\xff" + b"\x12\x01\x03\0\xff\xff\xff\xff\0\0\0\0" * 20
    return {
        "bomb": png(60_000, 60_000, bytes(10**6)),
        **bombs(),
        "a JPEG of 400 scans": with_scans(400),
        "says more pixels than there are": png(5000, 5000, bytes(100)),
        "says fewer pixels than there are": png(8, 8, bytes(10**6)),
        "no pixels": png(0, 0, b""),
        "a web page in front": b"<html><script>alert(1)</script></html>" + GOOD,
        "an archive behind": GOOD + b"PK\x03\x04" + bytes(200),
        "a JPEG called PNG": jpeg,
        "EXIF of 64 KiB of nothing": jpeg[:2] + exif + jpeg[2:],
        "EXIF without end": jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(endless) + 2) + endless + jpeg[2:],
        "zeros": bytes(4096),
        "an executable": b"\x7fELF" + bytes(200),
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        "one byte": b"\xff",
    }


def mutated(rng: random.Random, seeds: list[bytes]) -> bytes:
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 2, 8))):
        kind, at = rng.randrange(6), rng.randrange(len(data))
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\x80"))
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            del data[at : at + rng.randrange(1, 64)]
        elif kind == 4:
            data[at:at] = rng.randbytes(rng.randrange(1, 64))
        else:
            other = rng.choice(seeds)
            data[at:] = other[rng.randrange(len(other)) :]
        data = data or bytearray(b"\0")
    return bytes(data)


def fuzzed(count: int) -> list[bytes]:
    rng, face = random.Random(20260), support.portrait(5, side=40)
    seeds = [support.encoded(face, form) for form in ("png", "jpeg", "webp", "tiff", "bmp", "gif")]
    seeds.append(cv2.imencode(".png", face.astype(np.uint16) * 257)[1].tobytes())
    seeds.append(support.encoded(face, "tiff", compression="tiff_lzw"))
    seeds.append(support.encoded(face, "jpeg", progressive=True))
    return [mutated(rng, seeds) for _ in range(count)]
