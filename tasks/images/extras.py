"""Libraries for formats that few need: they come with the extra `formats`."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from bfr_models.errors import RowError

EXTRA = "pip install 'bfr-pipeline[formats]'"


def of_extra(module: str, what: str) -> Any:
    """The library. RowError `undecodable` if it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        raise RowError("undecodable", f"expected the library that reads {what}, found none; {EXTRA}") from error


@cache
def is_installed(module: str) -> bool:
    """Whether the library is there."""
    return find_spec(module) is not None
