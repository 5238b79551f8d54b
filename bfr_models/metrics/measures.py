"""The table of optional measures, and the choice of those a run takes, with their networks. Imports no torch, so the
driver stays small."""

from __future__ import annotations

from dataclasses import dataclass

from bfr_models.errors import UsageError, unknown
from bfr_models.faces.dlib_files import INSTALL as INSTALL_DLIB
from bfr_models.faces.dlib_files import dlib_is_here
from bfr_models.metrics.extractors import INCEPTION_WEIGHTS
from bfr_models.metrics.frechet import INCEPTION
from bfr_models.metrics.protocols import DEFAULT, protocol
from bfr_models.types import NetworkChoice
from bfr_models.weights.files import find_weight, read_card, require_weight


@dataclass(frozen=True)
class Measures:
    """Measures besides identity, PSNR and SSIM. None: its weights are not installed, or it was switched off."""

    lpips: NetworkChoice | None = None
    inception: NetworkChoice | None = None
    distances: bool = False  # there is a ground truth to compare with, so the recogniser's Fréchet sums are kept
    keep_embeddings: bool = False
    extra: tuple[str, ...] = ()  # keys of `EXTRA`


EXTRA = {"ms_ssim": "ms_ssim", "niqe": "niqe", "lmd": "lmd_dlib_5"}
"""Measured on request only: the name on the command line, and the column."""

LPIPS_WEIGHTS = {"vgg": "lpips-vgg16", "alex": "lpips-alexnet", "squeeze": "lpips-squeezenet"}
"""By preference: face restoration papers report VGG's."""

_LPIPS = "lpips_"

WHY_NO_LPIPS = "the weights of its backbone are not here, or --lpips none was asked for: bfr weights fetch lpips/vgg16"


def choose_measures(lpips: str, fid: str, *, has_gt: bool, extra: tuple[str, ...] = ()) -> Measures:
    """The networks by name; `auto` takes those that are installed and have something to compare with."""
    return Measures(_choose_lpips(lpips) if has_gt else None, _choose_inception(fid), distances=has_gt, extra=extra)


def choose_extra(metrics: tuple[str, ...], protocol_name: str) -> tuple[str, ...]:
    """The metrics asked for and those of a paper's protocol; UsageError for one that is unknown or cannot be measured
    here."""
    for name in metrics:
        if name not in EXTRA:
            raise unknown("metric", name, list(EXTRA))
    if "lmd" in metrics and not dlib_is_here():
        raise UsageError(f"expected dlib to find landmarks with for the metric lmd, found none; {INSTALL_DLIB}")
    of_papers = protocol(protocol_name).metrics if protocol_name != DEFAULT.name else {}
    wanted = {name for name in of_papers if name in EXTRA and (name != "lmd" or dlib_is_here())}
    return tuple(sorted(wanted | set(metrics)))


def weights_of(measures: Measures) -> list[str]:
    """Stems of the weight files that the measures need."""
    lpips = [LPIPS_WEIGHTS[lpips_backbone(measures)]] if measures.lpips else []
    return lpips + ([INCEPTION_WEIGHTS] if measures.inception else [])


def lpips_backbone(measures: Measures) -> str:
    """Its name for `--lpips`."""
    return measures.lpips.name.removeprefix(_LPIPS) if measures.lpips else "none"


def _choose_lpips(name: str) -> NetworkChoice | None:
    if name not in (known := ("auto", "none", *LPIPS_WEIGHTS)):
        raise unknown("lpips", name, known)
    if name == "auto":
        name = next((trunk for trunk, weight in LPIPS_WEIGHTS.items() if find_weight(weight)), "none")
    return None if name == "none" else _choice(f"{_LPIPS}{name}", LPIPS_WEIGHTS[name])


def _choose_inception(wanted: str) -> NetworkChoice | None:
    if wanted not in (known := ("auto", "none", "inception")):
        raise unknown("fid", wanted, known)
    if wanted == "none" or (wanted == "auto" and not find_weight(INCEPTION_WEIGHTS)):
        return None
    return _choice(INCEPTION, INCEPTION_WEIGHTS)


def _choice(name: str, weight: str) -> NetworkChoice:
    return NetworkChoice(name, read_card(require_weight(weight))["sha256"])
