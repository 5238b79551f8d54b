"""Which face recogniser scores a run: ArcFace with weights of its own, dlib's of the `offline` extra, or none."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from bfr_models.errors import BfrError, UsageError
from bfr_models.faces.dlib_files import RECOGNISER_FILE, dlib_file, dlib_is_here
from bfr_models.weight_files import file_sha256, find_weight, read_card, require_weight
from tasks._job import NetworkChoice
from tasks.config import RestoreRun

if TYPE_CHECKING:  # a driver that only names the recogniser needs no torch
    from bfr_models.faces.types import Recogniser

ARCFACE, DLIB = "arcface_ir_se50", "dlib_resnet_v1"
"""The names that stand beside every similarity."""

ARCFACE_WEIGHTS = "facexlib-arcface"
INSTALL_DLIB = "pip install 'bfr-pipeline[offline]'"
WHY_NONE = (
    f"no face recogniser scored this run: none is here ({INSTALL_DLIB}, or bfr weights fetch facexlib/arcface), or "
    "--recogniser none was asked for"
)


def run_recogniser(run: RestoreRun) -> NetworkChoice | None:
    """What scores a run; None where nothing does. UsageError when the run needs one."""
    choice = choose_recogniser(run.recogniser)
    if choice is None and run.min_identity is not None:
        raise UsageError(f"expected a face recogniser for min_identity {run.min_identity}, found none; {WHY_NONE}")
    return choice


def choose_recogniser(name: str) -> NetworkChoice | None:
    """The recogniser with its checksum; `auto` is ArcFace where its weights are here, else dlib's, else none.

    Loads no network. UsageError, which says what to do, when the one that is named is not here.
    """
    if name == "none":
        return None
    if name == "arcface" or (name == "auto" and find_weight(ARCFACE_WEIGHTS)):
        return NetworkChoice(ARCFACE, read_card(require_weight(ARCFACE_WEIGHTS))["sha256"])
    if dlib_is_here():
        return NetworkChoice(DLIB, _dlib_sha256())
    if name == "dlib":
        raise UsageError(
            f"expected dlib to recognise faces with, found none; {INSTALL_DLIB}, or use another recogniser"
        )
    return None


def load_recogniser(choice: NetworkChoice | None, device: str) -> Recogniser | None:
    """The recogniser, ArcFace on `device`. BfrError when its file is not the one that was chosen."""
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
    """Once a process."""
    if name == DLIB:
        from bfr_models.faces.dlib_models import DlibRecogniser

        return DlibRecogniser()
    from bfr_models.faces.arcface import ArcFaceRecogniser

    return ArcFaceRecogniser(require_weight(ARCFACE_WEIGHTS), device)


@cache
def _dlib_sha256() -> str:
    return file_sha256(dlib_file(RECOGNISER_FILE))
