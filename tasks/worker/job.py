"""What a worker is given: the job, once, and orders, one per shard. Imports no torch, so the driver stays small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from bfr_models.metrics.measures import Measures
from bfr_models.registry import ResolvedMethod
from bfr_models.types import NetworkChoice
from tasks.config.care import Care
from tasks.config.code import Code, running_code
from tasks.config.resolve import PhotoSettings, ResolvedRun
from tasks.runs.shards import Shard
from tasks.runs.spec import settings_digest

CPU_BATCH, GPU_BATCH = 8, 16

Row = TypeVar("Row")


@dataclass(frozen=True)
class Columns:
    """The names of the columns that hold images."""

    image: str
    gt: str | None = None
    mask: str | None = None


@dataclass(frozen=True)
class Job:
    """Everything a worker needs to run. Plain data, since it is sent to other machines."""

    destination: str
    method: ResolvedMethod
    seed: int
    columns: Columns
    format: Literal["png", "webp", "jpeg"]
    quality: int
    keep_input: bool
    recogniser: NetworkChoice | None
    min_identity: float | None
    batch_size: int | Literal["auto"]
    device: str
    threads: int | None = None  # torch's, on a CPU; None: as many as torch likes
    photos: PhotoSettings | None = None  # None: each image is one face
    measures: Measures = field(default_factory=Measures)
    care: Care = field(default_factory=Care)
    code: Code = field(default_factory=dict)  # the driver's: a worker with other code is refused
    settings: str = ""  # digest of the run's settings
    traced: bool = False  # whether the workers tell when they were in which stage


@dataclass(frozen=True)
class Order:
    """What a worker is to do with a shard: by default, to restore and commit it."""

    shard: Shard
    trial: range | None = None  # restore only these rows, counted from the shard's first, and commit nothing
    poison: Mapping[int, str] = field(default_factory=dict)  # rows to reject without decoding: row -> reason
    unreadable: str | None = None  # reject all rows without reading them, for this reason
    is_suspect: bool = False  # the shard has killed a worker before; if it kills another, blame it and not the run

    def rows_of(self, rows: Sequence[Row]) -> Sequence[Row]:
        """The rows of a shard that the order covers."""
        return rows if self.trial is None else rows[self.trial.start : self.trial.stop]


def make_job(resolved: ResolvedRun, device: str, threads: int | None) -> Job:
    """The job of a run's workers on this kind of device."""
    run = resolved.run
    return Job(
        destination=run.destination,
        method=resolved.method,
        seed=run.seed,
        columns=Columns(run.column, run.gt_column, run.mask_column),
        format=run.format,
        quality=run.quality,
        keep_input=run.keep_input,
        recogniser=resolved.recogniser,
        min_identity=None if resolved.gate is None else resolved.gate.threshold,
        batch_size=run.batch_size or (CPU_BATCH if device == "cpu" else GPU_BATCH),
        device=device,
        threads=threads,
        photos=resolved.photos,
        measures=resolved.measures,
        care=resolved.care,
        code=running_code(),
        settings=settings_digest(resolved.settings),
        traced=run.trace is not None,
    )
