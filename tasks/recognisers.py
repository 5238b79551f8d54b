"""Which face recogniser scores a run: dlib's, where the `offline` extra is installed; else none."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

from bfr_models.errors import UsageError
from bfr_models.faces.types import Recogniser

WHY_NONE = "no face recogniser is installed: pip install 'bfr-pipeline[offline]'"


@cache
def load_recogniser() -> Recogniser | None:
    """The recogniser, loaded once a process; None when there is none, which is no error."""
    if find_spec("dlib") is None:
        return None
    from bfr_models.faces.dlib_models import DlibRecogniser

    try:
        return DlibRecogniser()
    except UsageError:  # dlib without its model files
        return None


def describe_recogniser() -> dict[str, str] | None:
    """Name and sha256 of the recogniser that would score a run now."""
    recogniser = load_recogniser()
    return None if recogniser is None else {"name": recogniser.name, "sha256": recogniser.sha256}
