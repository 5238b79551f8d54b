"""Pictures that a dataset spells out in text, instead of naming where they are: `data:` URIs, and plain base64."""

from __future__ import annotations

import binascii
from urllib.parse import unquote_to_bytes

from bfr_models.errors import RowError

_BEGINNINGS = ("/9j/", "iVBORw0KGgo", "R0lGODlh", "R0lGODdh", "UklGR", "SUkqAA", "TU0AKg", "Qk0", "AAAA")
"""Of base64 of JPEG, PNG, GIF, RIFF (WebP), TIFF, BMP, and what begins with a small number (JPEG 2000, AVIF)."""
_SHORTEST = 100  # characters: no picture of a face has fewer, and no path as many that begin like one
_HEAD = 4096  # characters, among which a name would have others than base64


def is_spelt_out(text: str) -> bool:
    """Whether a cell's text is a picture itself, and no path or address."""
    if text[:5].lower() == "data:":
        return True
    if len(text) < _SHORTEST or not text.startswith(_BEGINNINGS):
        return False
    head = "".join(text[:_HEAD].split())
    try:
        binascii.a2b_base64(head[: len(head) // 4 * 4], strict_mode=True)
    except (binascii.Error, ValueError):
        return False
    return True


def spelt_out(text: str) -> bytes:
    """Its bytes. RowError `missing` if it is cut short or otherwise not what it claims to be."""
    head, comma, body = text.partition(",") if text[:5].lower() == "data:" else ("data:;base64", ",", text)
    if not comma:
        raise RowError("missing", "expected a data: URI with a comma before its bytes, found none")
    if not head.lower().endswith(";base64"):
        return unquote_to_bytes(body)
    plain = unquote_to_bytes(body).translate(None, b" \t\r\n")
    try:
        return binascii.a2b_base64(plain + b"=" * (-len(plain) % 4), strict_mode=True)
    except binascii.Error as error:
        raise RowError("missing", f"expected base64 of a picture, found text that is none: {error}") from None
