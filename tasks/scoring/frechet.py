"""Fréchet distances of a run, computed from what its shards have kept.

FID uses the Inception features of every face, which are in `features/`: any subset or reference can be compared later.
A recogniser's embeddings are biometric data: commit records hold only their sums, unless the run was told to keep them.
All sums are taken in the order of the plan, so that the distances do not depend on which worker was faster.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np

from bfr_models.errors import UsageError
from bfr_models.metrics.extractors import WHY_NO_FID
from bfr_models.metrics.frechet import FeatureSource, FeatureStatistics, Gaussian, frechet_distance
from bfr_models.metrics.measures import Measures
from tasks.config.restore import RestoreRun
from tasks.runs.sealed import run_parquet
from tasks.scoring.embedding_sums import SIDES, EmbeddingSums
from tasks.scoring.face_vectors import SOURCE_KEY
from tasks.storage.redaction import redact, redact_text
from tasks.storage.store import Store

NO_REFERENCE = "nothing to compare with: give --gt-column or --fid-reference"


def distances(
    run: RestoreRun, store: Store, measures: Measures, sums: EmbeddingSums, feature_files: Iterable[tuple[str, str]]
) -> dict[str, Any]:
    """Entries of `statistics`: `fid`, and `fd_<recogniser>` if there are sums.

    `feature_files` are (shard, path), in the order of the plan.
    """
    found: dict[str, Any] = {}
    if (restored := sums.total("restored")) is not None:
        found[restored.source.metric] = set_distance(run, restored, sums.total("gt"))
    if measures.inception is None:
        return found | {"fid": {"value": None, "why": WHY_NO_FID}}
    if not measures.distances:
        return found | {"fid": {"value": None, "why": NO_REFERENCE}}
    files = list(feature_files)
    restored, gt = (_total(store, files, column) for column in ("inception", "inception_gt"))
    if restored is None:
        return found | {"fid": {"value": None, "why": "no face was restored"}}
    return found | {"fid": set_distance(run, restored, gt)}


def distance_to_gt(sums: EmbeddingSums) -> dict[str, Any]:
    """`fd_<recogniser>` between the restored faces and their ground truth; empty without sums of both."""
    restored, gt = (sums.total(side) for side in SIDES)
    return {restored.source.metric: _between(restored, _gaussian(gt), "gt")} if restored and gt else {}


def set_distance(run: RestoreRun, restored: FeatureStatistics, gt: FeatureStatistics | None) -> dict[str, Any]:
    """The distance between restored faces and the run's reference: its `fid_reference`, else `gt`. One that does not
    compare, since it has other features, leaves no distance but the reason: a run has to end all the same."""
    if run.fid_reference is None:
        return _between(restored, _gaussian(gt), "gt") if gt else {"value": None, "why": NO_REFERENCE}
    from tasks.scoring.reference_set import (
        reference_statistics,
    )  # imports torch, which the driver of Ray actors must not

    try:
        return _between(restored, reference_statistics(run.fid_reference, restored.source), redact(run.fid_reference))
    except UsageError as error:
        return {"value": None, "why": redact_text(str(error))[:500]}


def _between(restored: FeatureStatistics, reference: Gaussian | None, name: str) -> dict[str, Any]:
    mine, source = _gaussian(restored), restored.source
    if mine is None or reference is None:
        return {"value": None, "why": f"expected features of at least 2 faces, found {restored.n}"}
    distance = frechet_distance(mine, reference)
    return {
        "value": distance.value,
        "features": source.network,
        "sha256": source.sha256,
        "preprocessing": source.preprocessing,
        "n": mine.n,
        "n_reference": reference.n,
        "reference": name,
        "warning": distance.warning,
    }


def _gaussian(statistics: FeatureStatistics) -> Gaussian | None:
    return statistics.gaussian() if statistics.n > 1 else None  # one face has no covariance


def _total(store: Store, files: Iterable[tuple[str, str]], column: str) -> FeatureStatistics | None:
    """The statistics of one column over all shards; one shard at a time is in memory."""
    return folded(_of_each_shard(store, files, column))


def folded(parts: Iterator[FeatureStatistics]) -> FeatureStatistics | None:
    """The parts added up, in their order; None if there are none."""
    first = next(parts, None)
    return None if first is None else FeatureStatistics.fold(chain([first], parts))


def _of_each_shard(store: Store, files: Iterable[tuple[str, str]], column: str) -> Iterator[FeatureStatistics]:
    for shard, path in files:
        with run_parquet(store, path) as parquet:
            table = parquet.read(columns=[column])
        vectors = table[column].drop_null()
        if len(vectors):
            source = FeatureSource(**json.loads(table.schema.metadata[SOURCE_KEY]))
            yield FeatureStatistics.from_features(np.stack(vectors.to_numpy()), source, shard)
