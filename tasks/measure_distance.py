"""Fréchet distance between two sets of faces (`bfr fid`), each a dataset, a finished run or saved statistics."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from typing import Any

import numpy as np

from bfr_models.device import local_device
from bfr_models.errors import UsageError
from bfr_models.metrics.extractors import load_extractor
from bfr_models.metrics.frechet import UNKNOWN, FeatureSource, Gaussian, frechet_distance
from bfr_models.metrics.kernel import kernel_distance
from bfr_models.metrics.manifold import precision_recall
from tasks.datasets.overwriting import made_by
from tasks.scoring.reference_set import is_saved, locate, read_side
from tasks.storage.redaction import redact


def measure_distance(
    a: str,
    b: str,
    *,
    features: str = "auto",
    preprocessing: str = "pytorch-fid",
    column: str | None = None,
    kernel: bool = False,
    save: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """`{"fid": …}` or `{"fd_<network>": …}`, with what it was measured on.

    Saved statistics that do not name their network have the name that `features` gives them, or else none: the distance
    is then `fd_unknown`. `kernel` adds the kernel distance, and the precision and recall of A against B, which need
    datasets on both sides.
    `save` is a .npz file to which B's statistics are written; another one there is replaced only to `overwrite` it.
    """
    if kernel and (is_saved(a) or is_saved(b)):
        raise UsageError("expected two datasets for the kernel distance, found saved statistics: it needs each face")
    settings = {"features": features, "preprocessing": preprocessing, "column": column}
    mark = made_by("fid", b, settings)
    if save is not None and not overwrite and not _made_here(save, mark):
        raise UsageError(
            f"expected no file at {redact(save)}, or what this same command has saved, found another; choose another "
            "name, or replace it with --overwrite"
        )
    extractor, assumed = None, None
    if features != "auto" or not (is_saved(a) and is_saved(b)):
        extractor = load_extractor(features, preprocessing, local_device())
        assumed = extractor.source if features != "auto" else None
    sides = [read_side(url, extractor, column, kernel, assumed) for url in (a, b)]
    gaussians = _of_one_name([side.gaussian for side in sides])
    distance = frechet_distance(*gaussians)
    found: dict[str, Any] = {
        distance.name: distance.value,
        "n": list(distance.n),
        "warning": distance.warning,
        "features": vars(gaussians[0].source),
        "a": redact(a),
        "b": redact(b),
        "skipped": [side.skipped for side in sides],
    }
    if kernel:
        assert extractor is not None, "there are two datasets"
        x, y = (np.concatenate(side.features) for side in sides)
        near = kernel_distance(x, y, extractor.source)
        overlap = precision_recall(x, y)
        found[near.name] = {"mean": near.mean, "std": near.std, "subsets": near.subsets, "size": near.subset_size}
        found |= {"precision": overlap.precision, "recall": overlap.recall}
    if save is not None:
        store, name = locate(save)
        store.write(name, sides[1].gaussian.to_npz(made_by=mark))
    return found


def _of_one_name(gaussians: list[Gaussian]) -> list[Gaussian]:
    """Both sides as of an unknown network if one of them is."""
    if all(side.source.network != UNKNOWN for side in gaussians):
        return gaussians
    return [replace(side, source=FeatureSource(UNKNOWN)) for side in gaussians]


def _made_here(save: str, mark: str) -> bool:
    """Whether there is nothing at `save`, or statistics that the same command has made."""
    store, name = locate(save)
    if not store.exists(name):
        return True
    try:
        with np.load(io.BytesIO(store.read(name)), allow_pickle=False) as saved:
            return "made_by" in saved and str(saved["made_by"]) == mark
    except (ValueError, OSError, EOFError, zipfile.BadZipFile):
        return False
