"""Building blocks of HTML pages: templates that escape, images as data URIs, finite numbers."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsFloat

from jinja2 import Environment, FileSystemLoader
from PIL import Image, ImageOps

from tasks.storage.redaction import redact

LADDER = ((512, 88), (384, 84), (256, 80), (160, 70), (96, 60))  # (longest side in px, WebP quality), best first


@dataclass(frozen=True)
class Cell:
    """One encoded image of the gallery (PNG, JPEG, WebP, ...); None shows the caption as the reason."""

    column: str  # "input", "gt" or a method's name
    image: bytes | None
    caption: str  # e.g. "identity 0.93 · 24.1 dB"
    identity: float | None = None  # the number in the caption, in [-1, 1]: rows with the lowest are always shown
    word: str | None = None  # what it says: rows in which it is doubtful are marked


@dataclass(frozen=True)
class GalleryRow:
    """The images of one row of the dataset."""

    id: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Reject:
    """A row that could not be restored: `error` is a stable code, `detail` is for people."""

    id: str
    error: str
    detail: str


def printable(page: str) -> str:
    """The page without control characters, which HTML forbids, and lone surrogates, which UTF-8 cannot encode.

    Hostile row ids contain both.
    """
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", "\ufffd", page)


def template(name: str) -> Any:
    """A template of `templates/`; it escapes the values that it is given."""
    folder = FileSystemLoader(Path(__file__).parent / "templates")
    env = Environment(loader=folder, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    env.filters["plain"] = plain
    env.filters["zip"] = zip
    env.filters["sha256"] = lambda text: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return env.get_template(name)


def image_uri(encoded: bytes, budget: int) -> dict[str, Any]:
    """An image as a data URI of at most `budget` bytes before base64, or else the smallest of the ladder."""
    opened: Image.Image = Image.open(io.BytesIO(encoded))
    # EXIF orientations from 5 on swap width and height.
    size = opened.size[::-1] if opened.getexif().get(0x0112, 1) >= 5 else opened.size
    opened.draft("RGB", (2 * LADDER[0][0],) * 2)  # libjpeg decodes a large JPEG at 1/2, 1/4 or 1/8 of its size
    if (factor := max(opened.size) // (4 * LADDER[0][0])) > 1 and opened.mode in ("L", "RGB", "RGBA"):
        exif = opened.getexif()
        opened = opened.reduce(factor)  # first, or transposing would make a second large image
        opened.info["exif"] = exif.tobytes()
    image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I"):  # 16 bits: converting to RGB would clip at 255 instead of scaling
        image = image.convert("F").point(lambda level: level / 257).convert("L")
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    data = _webp(image, 512, 80, lossless=True) if max(size) <= 128 else b""
    for side, quality in LADDER:
        if data and len(data) <= budget:
            break
        data = _webp(image, side, quality)
    return {"src": "data:image/webp;base64," + base64.b64encode(data).decode(), "size": size}


def _webp(image: Image.Image, side: int, quality: int, lossless: bool = False) -> bytes:
    image = image.copy()
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    image.save(buffer := io.BytesIO(), "WEBP", quality=quality, method=2, lossless=lossless)
    return buffer.getvalue()


def finite(value: object) -> float | None:
    """The number (numpy's too), or None for anything else: NaN, which JSON files may have, nothing, a string."""
    number = float(value) if isinstance(value, SupportsFloat) else math.nan
    return number if math.isfinite(number) else None


def plain(value: object, limit: int = 300) -> str:
    """A value of run.json as text of bounded length, with URLs redacted."""
    if isinstance(value, Mapping):
        return plain(" · ".join(f"{key} {plain(inner)}" for key, inner in value.items()), 4 * limit)
    text = "—" if value is None else str(value)
    try:
        text = redact(text) if "://" in text else text
    except ValueError:
        text = "a URL that cannot be read"
    return text if len(text) <= limit else f"{text[: limit // 2]} … {text[-limit // 3 :]}"
