"""What `bfr score` and `bfr degrade` refuse before anything is written, and before torch is imported."""

from __future__ import annotations

from collections.abc import Iterable

from bfr_models.degradation.presets import preset_of_row
from bfr_models.faces.recognisers import choose_recogniser
from bfr_models.metrics.measures import choose_extra, choose_measures
from tasks.config.degrade import DegradeRun
from tasks.config.score import ScoreRun
from tasks.datasets.image_column import find_image_column
from tasks.datasets.overwriting import made_by, require_apart, require_free
from tasks.datasets.row_groups import opened_parquet
from tasks.runs.source import open_source
from tasks.storage.store import Store


def check_score(run: ScoreRun) -> str:
    """The mark of what it writes. UsageError for an unknown name, a column that is not there, and a destination that
    holds something else or lies in the source."""
    choose_recogniser(run.recogniser)
    choose_measures(run.lpips, "none", has_gt=run.gt_column is not None, extra=choose_extra(run.metrics, run.protocol))
    settings = run.model_dump(mode="json", exclude={"source", "destination", "overwrite"})
    mark = made_by("score", run.source, settings)
    require_apart(run.source, run.destination)
    require_free(Store(run.destination), mark, overwrite=run.overwrite)
    _require_images(run.source, filter(None, (run.column, run.lq_column, run.gt_column)))
    return mark


def check_degrade(run: DegradeRun) -> str:
    """The same for a degradation."""
    preset_of_row(run.preset, 0)
    mark = made_by("degrade", run.source, run.model_dump(mode="json", include={"preset", "size", "seed", "column"}))
    require_apart(run.source, run.destination)
    require_free(Store(run.destination), mark, overwrite=run.overwrite)
    _require_images(run.source, [run.column])
    return mark


def _require_images(source: str, columns: Iterable[str]) -> None:
    """UsageError if a column of the source's first file holds no images; that of another file is seen when it is
    read."""
    store, file = open_source(source)[0]
    with opened_parquet(store, file) as parquet:
        for column in columns:
            find_image_column(parquet.schema_arrow, column)
