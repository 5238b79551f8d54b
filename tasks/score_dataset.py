"""Scores faces that were restored elsewhere or earlier (`bfr score`), as a run would have scored them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from bfr_models.device import local_device
from bfr_models.errors import RowError
from bfr_models.faces.recognisers import WHY_NONE, choose_recogniser
from bfr_models.metrics.measures import EXTRA, WHY_NO_LPIPS, Measures, choose_extra, choose_measures
from bfr_models.metrics.summary import Summary
from bfr_models.pixels import Uint8Image, face_tensor, to_uint8
from tasks.config.score import ScoreRun
from tasks.datasets.image_column import find_image_column, image_bytes
from tasks.datasets.row_groups import batches, opened_parquet, values
from tasks.datasets.row_ids import row_ids
from tasks.datasets.writer import DatasetWriter
from tasks.images.codec import decode
from tasks.runs.early import check_score
from tasks.runs.source import open_source
from tasks.scoring.embedding_sums import EmbeddingSums, embedding_sums
from tasks.scoring.figures import figures
from tasks.scoring.frechet import distance_to_gt
from tasks.scoring.scorer import FaceTriple, load_scorer
from tasks.scoring.statistics import BIN_WIDTHS, WHY_TOO_SMALL, WITHOUT_GT
from tasks.storage.store import Store
from tasks.worker.batches import call_or_bisect

BATCH_ROWS = 16
METRICS = (*BIN_WIDTHS, "sharpness")
SCHEMA = pa.schema([("id", pa.string()), *((name, pa.float32()) for name in METRICS), ("error", pa.string())])


def score_dataset(run: ScoreRun) -> dict[str, Any]:
    """Writes a dataset of scores, one row per row of the source in its order; returns the statistics.

    A row whose images do not decode, do not have the restored face's shape, or are too small for a metric, has the
    reason in `error`.
    """
    store = Store(run.destination)
    mark = check_score(run)
    recogniser = choose_recogniser(run.recogniser)
    extra = choose_extra(run.metrics, run.protocol)
    measures = choose_measures(run.lpips, "none", has_gt=run.gt_column is not None, extra=extra)
    scorer, sums = load_scorer(recogniser, measures, local_device()), EmbeddingSums()
    summaries = {name: Summary(width) for name, width in BIN_WIDTHS.items()}
    unmeasured = {} if run.lq_column else {"identity_similarity": None, "identity_degrees": None}
    failed = 0
    with DatasetWriter(store, 500_000, 65_536, SCHEMA, mark=mark) as writer:
        for key, ids, faces in _batches(run):
            good = [face for face in faces if isinstance(face, FaceTriple)]
            scored = iter(call_or_bisect(scorer.score, good, "not_scored"))
            ended = [face if isinstance(face, RowError) else next(scored) for face in faces]
            rows: list[dict[str, Any]] = [
                {"error": str(one)} if isinstance(one, RowError) else vars(one) | unmeasured for one in ended
            ]
            if recogniser is not None and measures.distances:
                seen = [row["features"] for row in rows if "features" in row]
                sums.add({"embedding_sums": embedding_sums(seen, recogniser, key)})
            for name, width in BIN_WIDTHS.items():
                values: Iterator[Any] = (row.get(name) for row in rows)
                summaries[name] += Summary.of(values, width)
            failed += sum(isinstance(one, RowError) for one in ended)
            columns = {name: [row.get(name) for row in rows] for name in SCHEMA.names} | {"id": ids}
            writer.write(pa.Table.from_pydict(columns, SCHEMA))
    by = {"recogniser": None if recogniser is None else asdict(recogniser), "measures": asdict(measures)}
    statistics = {name: summary.to_report() if summary.n else None for name, summary in summaries.items()}
    statistics |= distance_to_gt(sums)
    return {
        "rows": writer.rows,
        "failed": failed,
        "unmeasured": _unmeasured(run, measures, statistics),
        **by,
        "protocol": figures(run.protocol, by, statistics),
        "statistics": statistics,
    }


def _unmeasured(run: ScoreRun, measures: Measures, statistics: Mapping[str, Any]) -> dict[str, str]:
    """The scores that were asked for and that no row has, and why."""
    found = {}
    for name in BIN_WIDTHS:
        extra = next((one for one in EXTRA if name.startswith(one)), None)
        if statistics[name] is not None or (extra is not None and extra not in measures.extra):
            continue
        if name not in WITHOUT_GT and run.gt_column is None:
            found[name] = "no ground truth: name its column with --gt-column"
        elif name in WITHOUT_GT and name != "niqe" and run.lq_column is None:
            found[name] = "no degraded faces to compare with: name their column with --lq-column"
        elif name == "lpips":
            found[name] = WHY_NO_LPIPS
        else:
            found[name] = WHY_TOO_SMALL.get(name) or WHY_NONE
    return found


def _batches(run: ScoreRun) -> Iterator[tuple[str, list[str], list[FaceTriple | RowError]]]:
    """(key, ids, faces) of some rows at a time, with a RowError for each row that cannot be scored."""
    columns = [name for name in (run.column, run.lq_column, run.gt_column) if name is not None]
    for store, file in open_source(run.source):
        with opened_parquet(store, file) as parquet:
            for name in columns:
                find_image_column(parquet.schema_arrow, name)
            wanted = [*columns, "id"] if "id" in parquet.schema_arrow.names else columns
            first_row = 0
            for batch in batches(parquet, BATCH_ROWS, wanted):
                table = pa.Table.from_batches([batch])
                cells = {name: values(table[name]) for name in columns}
                rows = (dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True))
                faces = [_face(run, row) for row in rows]
                yield f"{file.name}#{first_row}", row_ids(file.name, first_row, table), faces
                first_row += table.num_rows


def _face(run: ScoreRun, row: dict[str, Any]) -> FaceTriple | RowError:
    try:
        restored = decode(image_bytes(row[run.column])).pixels
        lq, gt = (_beside(row, name, restored) for name in (run.lq_column, run.gt_column))
    except RowError as error:
        return error
    return FaceTriple(restored if lq is None else lq, restored, gt)


def _beside(row: dict[str, Any], column: str | None, restored: Uint8Image) -> Uint8Image | None:
    """Another image of the same face, resized to the restored face; None without such a column."""
    if column is None:
        return None
    pixels = decode(image_bytes(row[column])).pixels
    height, width = restored.shape[:2]
    if height != width:
        raise RowError("not_square", f"expected an aligned face, found {width} x {height}")
    return to_uint8(face_tensor(pixels, height))
