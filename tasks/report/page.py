"""Building blocks of HTML pages: templates that escape, text of bounded length, finite numbers."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, SupportsFloat

from tasks.storage.redaction import redact

if TYPE_CHECKING:
    from jinja2 import Environment, Template

TEMPLATES = Path(__file__).parent / "templates"
LOOK = TEMPLATES / "look.css"
"""Colours and fonts that all pages share."""


def printable(page: str) -> str:
    """The page without control characters, which HTML forbids, and lone surrogates, which UTF-8 cannot encode.

    Hostile row ids contain both.
    """
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", "\ufffd", page)


def template(name: str) -> Template:
    """A template of `templates/`; it escapes the values that it is given. Compiled once per process."""
    return _environment().get_template(name)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader  # a tenth of a second, which what renders nothing is spared

    env = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    env.filters["plain"] = plain
    env.filters["zip"] = zip
    env.filters["sha256"] = lambda text: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return env


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
