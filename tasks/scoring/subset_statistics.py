"""The statistics of some rows of a run, as exact as the run's own, from its rows, `features/` and commit records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bfr_models.errors import BfrError
from bfr_models.metrics.extractors import WHY_NO_FID
from bfr_models.metrics.frechet import FeatureSource, FeatureStatistics
from bfr_models.metrics.summary import Summary
from tasks.config.restore import RestoreRun
from tasks.runs import commits
from tasks.runs.finished_run import FinishedRun, Rows, RunFile
from tasks.runs.outcomes import outcome_word
from tasks.scoring.embedding_sums import SIDES, EmbeddingSums
from tasks.scoring.face_vectors import FaceVectors
from tasks.scoring.frechet import NO_REFERENCE, folded, set_distance
from tasks.scoring.statistics import BIN_WIDTHS, empty_summaries

OF_THE_RUN = "gt of the whole run, left-out rows included: the run kept no embeddings of its gt"
_WHY_NO_EMBEDDINGS = (
    "the run has the embeddings' sums of whole shards alone: restore it with --keep-embeddings for other subsets"
)
_TOGETHER = 4096  # faces per matrix product of the covariance


@dataclass
class _Sums:
    """Sums of commit records: over the kept shards if each shard is kept whole or not at all, else over all shards, and
    then of the embeddings only."""

    is_whole: bool
    embeddings: EmbeddingSums = field(default_factory=EmbeddingSums)
    summaries: dict[str, Summary] = field(default_factory=empty_summaries)


def subset_statistics(run: FinishedRun, rows: Rows) -> dict[str, Any]:
    """The `statistics` of these rows, named as in run.json; what cannot be known is null, with a `why`."""
    some = run.table.take(pa.array(rows))
    kept = np.zeros(run.table.num_rows, bool)
    kept[rows] = True
    sums = _sums_of_shards(run, kept)
    if not sums.is_whole:
        names = [name for name in BIN_WIDTHS if name in some.column_names]
        sums.summaries |= {name: Summary.of(some[name].to_pylist(), BIN_WIDTHS[name]) for name in names}
    outcomes = pc.struct_field(pc.list_flatten(some["faces"].combine_chunks()), "outcome").to_pylist()
    return {
        "n_restored": len(rows),
        "outcomes": dict(Counter(map(outcome_word, outcomes)).most_common()),
        **{name: _report(run, name, sums.summaries[name]) for name in BIN_WIDTHS if name in run.record["statistics"]},
        **_distances(run, kept, sums),
    }


def _report(run: FinishedRun, name: str, summary: Summary) -> dict[str, Any]:
    why = run.record["statistics"][name].get("why", "no kept row was scored")
    return summary.to_report() if summary.n else {"value": None, "why": why}


def _sums_of_shards(run: FinishedRun, kept: NDArray[np.bool_]) -> _Sums:
    shares = {file.shard: kept[file.start : file.stop].mean() for file in run.files}
    sums = _Sums(is_whole=all(share in (0, 1) for share in shares.values()))
    for record in commits.read_commits(run.store, run.commits):
        if sums.is_whole and not shares.get(record["shard"]):
            continue
        sums.embeddings.add(record)
        if sums.is_whole:
            for name, found in record["statistics"].items():
                sums.summaries[name] += Summary.from_json(found)
    return sums


def _distances(run: FinishedRun, kept: NDArray[np.bool_], sums: _Sums) -> dict[str, Any]:
    settings, measures = RestoreRun.model_validate(run.record["arguments"]), run.record["measures"]
    found = _embedding_distance(run, settings, kept, sums)
    if measures["inception"] is None:
        return found | {"fid": {"value": None, "why": WHY_NO_FID}}
    if not measures["distances"]:
        return found | {"fid": {"value": None, "why": NO_REFERENCE}}
    restored = _total(run, kept, "inception")
    if restored is None:
        return found | {"fid": {"value": None, "why": "no face was restored"}}
    gt = None if settings.fid_reference else _total(run, kept, "inception_gt")
    return found | {"fid": _distance(settings, restored, gt)}


def _embedding_distance(run: FinishedRun, settings: RestoreRun, kept: NDArray[np.bool_], sums: _Sums) -> dict[str, Any]:
    """`fd_<recogniser>`, if the run measured it. Runs of earlier versions kept no embeddings of the ground truth:
    unless shards are kept whole, their faces are compared with the ground truth of the whole run."""
    measures, recogniser = run.record["measures"], run.record["recogniser"]
    if recogniser is None or not measures["distances"]:
        return {}
    source = FeatureSource(recogniser["name"], recogniser["sha256"])
    restored, gt = (sums.embeddings.total(side) for side in SIDES)
    if not sums.is_whole:
        if not measures["keep_embeddings"]:
            return {source.metric: {"value": None, "why": _WHY_NO_EMBEDDINGS}}
        restored = _total(run, kept, "embedding", source)
    if restored is None:
        return {source.metric: {"value": None, "why": "no face was restored"}}
    is_of_kept = sums.is_whole or settings.fid_reference is not None or FaceVectors(run).has("embedding_gt")
    if is_of_kept and not sums.is_whole:
        gt = None if settings.fid_reference else _total(run, kept, "embedding_gt", source)
    distance = _distance(settings, restored, gt)
    return {source.metric: distance if is_of_kept else distance | {"reference": OF_THE_RUN}}


def _distance(settings: RestoreRun, restored: FeatureStatistics, gt: FeatureStatistics | None) -> dict[str, Any]:
    try:
        return set_distance(settings, restored, gt)
    except (BfrError, OSError) as error:  # the run's reference may no longer be available
        return {"value": None, "why": f"{error}"[:500]}


def _total(
    run: FinishedRun, kept: NDArray[np.bool_], column: str, source: FeatureSource | None = None
) -> FeatureStatistics | None:
    """The statistics of one column over the faces of the kept rows; a few thousand faces at a time are in memory."""
    return folded(_parts(run, kept, column, source))


def _read_ahead(
    run: FinishedRun, kept: NDArray[np.bool_], column: str
) -> Iterator[tuple[RunFile, tuple[Rows, NDArray[np.float32], FeatureSource | None]]]:
    """One column of the files that have kept rows, in order; the next file is read while one is being processed."""
    vectors = FaceVectors(run)
    with ThreadPoolExecutor(1) as reader:
        waiting: tuple[RunFile, Future[Any]] | None = None
        for file in run.files:
            if not kept[file.start : file.stop].any():
                continue
            before, waiting = waiting, (file, reader.submit(vectors.read, file, column))
            if before is not None:
                yield before[0], before[1].result()
        if waiting is not None:
            yield waiting[0], waiting[1].result()


def _parts(
    run: FinishedRun, kept: NDArray[np.bool_], column: str, given: FeatureSource | None
) -> Iterator[FeatureStatistics]:
    waiting: list[NDArray[np.float32]] = []
    first: RunFile | None = None
    source = given
    for file, (owners, vectors, found) in _read_ahead(run, kept, column):
        own = vectors[kept[owners]]
        if not len(own):
            continue
        about = given or found
        if about is None:
            raise BfrError(
                f"expected {file.features} to name the network of its features, found no name; run `bfr verify`"
            )
        if source is not None:
            source.check(about)
        source, first = about, first or file
        waiting.append(own)
        if sum(map(len, waiting)) >= _TOGETHER:
            yield FeatureStatistics.from_features(np.concatenate(waiting), source, first.shard)
            waiting, first = [], None
    if first is not None and source is not None:
        yield FeatureStatistics.from_features(np.concatenate(waiting), source, first.shard)
