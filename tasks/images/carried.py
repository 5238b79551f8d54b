"""Writes what was beside an image into its output, and says what the output's format has no place for."""

from __future__ import annotations

import zlib
from typing import Any

from tasks.images.beside import Beside
from tasks.images.jpeg_segments import iptc_segment, photoshop_resource
from tasks.images.png_chunks import IPTC_KEYS, XMP_KEY, raw_profile, resolution

_MAX_SEGMENT = 65533  # bytes in a JPEG's segment: its 16-bit length includes the two bytes of the length
_XMP_PREFIX = 29  # bytes before XMP in its segment
_MAX_COMMENT = 65533


def png_chunks(beside: Beside) -> list[tuple[bytes, bytes]]:
    """Kind and body of the chunks that a PNG gets before its pixels: everything has a place there."""
    chunks = list(beside.colour)
    if beside.icc:
        chunks = [(kind, body) for kind, body in chunks if kind not in (b"sRGB",)]  # not both, says the format
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(beside.icc)))
    if beside.dpi:
        chunks.append(resolution(*beside.dpi))
    if beside.exif:  # eXIf has no "Exif" prefix, which only JPEG needs
        chunks.append((b"eXIf", beside.exif.removeprefix(b"Exif\0\0")))
    if beside.xmp:
        chunks.append((b"iTXt", XMP_KEY + b"\0\0\0\0\0" + beside.xmp))
    if beside.iptc:
        profile = raw_profile(b"iptc", photoshop_resource(beside.iptc))
        chunks.append((b"zTXt", IPTC_KEYS[0] + b"\0\0" + zlib.compress(profile)))
    chunks += [_comment(comment) for comment in beside.comments]
    return chunks + beside.texts


def _comment(comment: bytes) -> tuple[bytes, bytes]:
    """A JPEG's or GIF's comment as a text of a PNG: Latin-1 unless it is UTF-8."""
    comment = comment.rstrip(b"\0")
    try:
        comment.decode("ascii")
        return b"tEXt", b"Comment\0" + comment.replace(b"\0", b" ")
    except UnicodeDecodeError:
        text = comment.decode("utf-8") if _is_utf8(comment) else comment.decode("latin-1")
        return b"iTXt", b"Comment\0\0\0\0\0" + text.encode().replace(b"\0", b" ")


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def options(beside: Beside, fmt: str) -> dict[str, Any]:
    """What Pillow's `save` needs to write it into a JPEG or WebP."""
    fits = _fitting(beside, fmt)
    found: dict[str, Any] = {"icc_profile": beside.icc, "exif": fits.exif, "xmp": fits.xmp}
    if fmt == "jpeg":
        found |= {"dpi": beside.dpi, "extra": iptc_segment(fits.iptc) if fits.iptc else None}
        if fits.comments:
            found["comment"] = b"\n".join(fits.comments)
    return {key: value for key, value in found.items() if value is not None}


def without_place(beside: Beside, fmt: str) -> list[str]:
    """What the format has no place for, in a few words each."""
    if fmt == "png":
        return []
    fits = _fitting(beside, fmt)
    missing = [name for name in ("exif", "xmp", "iptc", "dpi") if getattr(beside, name) and not getattr(fits, name)]
    names = {"exif": "EXIF", "xmp": "XMP", "iptc": "IPTC", "dpi": "the resolution"}
    found = [names[name] for name in missing]
    if beside.comments and not fits.comments:
        found.append("a comment")
    if beside.texts:
        found.append("texts (" + ", ".join(dict.fromkeys(_key(body) for _, body in beside.texts))[:200] + ")")
    if beside.colour and not beside.icc:
        found.append("colour data (" + ", ".join(kind.decode() for kind, _ in beside.colour) + ")")
    return found


def _fitting(beside: Beside, fmt: str) -> Beside:
    """What has a place in a JPEG or WebP."""
    if fmt == "webp":
        return Beside(exif=beside.exif, xmp=beside.xmp)
    joined = sum(len(comment) + 1 for comment in beside.comments)
    return Beside(
        exif=beside.exif if len(beside.exif or b"") <= _MAX_SEGMENT else None,
        xmp=beside.xmp if len(beside.xmp or b"") + _XMP_PREFIX <= _MAX_SEGMENT else None,
        iptc=beside.iptc if beside.iptc and iptc_segment(beside.iptc) else None,
        dpi=beside.dpi,
        comments=beside.comments if joined <= _MAX_COMMENT else [],
    )


def _key(text: bytes) -> str:
    name = text.partition(b"\0")[0][:79].decode("latin-1")
    return "".join(c if c.isprintable() else "?" for c in name)
