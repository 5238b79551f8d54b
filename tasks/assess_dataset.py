"""`bfr assess`: for every picture its faces, what is wrong with them, and what a restore would do. Restores nothing.

    assessment/*.parquet     one row per picture with a list of its faces; pictures that do not decode are rows, too
    duplicates.parquet       pictures that look like an earlier one, by a perceptual hash
    report/index.html        counts, distributions and examples as a page
    assess.json              settings, totals, versions; written last

A file of `assessment` is written once all of its rows are done, and not made again: running the same command again goes
on where it was stopped.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from bfr_models.device import local_device
from bfr_models.judge.verdict import HarmLimits
from tasks.assessment.begin import begin, require_assessment
from tasks.assessment.outcomes import Limits
from tasks.assessment.table import DUPLICATES, RECORD, SCHEMA, UNFINISHED
from tasks.assessment.units import Unit
from tasks.config.assess import AssessRun
from tasks.config.code import installed, running_code
from tasks.config.resolve import ResolvedRun
from tasks.datasets.writer import encode_table
from tasks.runs.layout import REPORT
from tasks.runs.selected_rows import CHANGED
from tasks.storage.redaction import redact
from tasks.storage.store import Store
from tasks.worker.daemon_threads import DaemonThreads

if TYPE_CHECKING:
    from tasks.assessment.assessor import Assessor
    from tasks.assessment.totals import Totals

PACKAGES = ("bfr-pipeline", "torch", "dlib-bin", "opencv-python-headless", "pyarrow", "numpy", "Pillow")
AHEAD = 2  # pieces in hand for each thread

Rows = list[dict[str, Any]]


class Line(Protocol):
    """A line of progress."""

    def advance(self, rows: int) -> None: ...


Progress = Callable[[str, int, int], AbstractContextManager[Line]]


def require_place(asked: AssessRun) -> None:
    """UsageError, before files are packed into it, if the destination holds something else."""
    require_assessment(Store(asked.destination))


def finished_assessment(asked: AssessRun) -> dict[str, Any] | None:
    """assess.json, if nothing is left to do; None otherwise. Writes nothing, and imports no torch. UsageError for what
    cannot be done."""
    begun = begin(asked)
    return begun.finished if begun.is_done else None


def assess_dataset(asked: AssessRun, progress: Progress) -> dict[str, Any]:
    """Looks at the dataset and writes the assessment; returns assess.json. `progress` gets a label, the number of rows,
    and how many are done. UsageError, before anything is written, for what cannot be done."""
    begun = begin(asked)
    if begun.is_done:
        assert begun.finished is not None
        return begun.finished
    from bfr_models.judge.judge import Judge
    from tasks.assessment.assessor import Assessor
    from tasks.assessment.page import render_assessment
    from tasks.assessment.totals import Totals

    store, resolved, choice, planned, todo = begun.store, begun.resolved, begun.judge, begun.planned, begun.todo
    judge = None if choice is None else Judge(choice)
    harm = HarmLimits() if judge is None else judge.harm_limits(asked.max_harm)
    limits = Limits(harm, asked.min_gain, resolved.method.preset.size)
    store.write(UNFINISHED, json.dumps(begun.request, indent=2).encode())
    for path in (RECORD, *begun.outdated):  # rows of files that have changed since
        store.delete(path) if store.exists(path) else None
    assessor = Assessor(resolved, judge, limits, local_device())
    began, rows = time.monotonic(), sum(unit.rows for unit in planned)
    with progress("assess", rows, rows - sum(unit.rows for unit in todo)) as line:
        _assess(todo, assessor, store, asked.threads or os.cpu_count() or 1, line)
    looked, seconds = sum(unit.rows for unit in todo), time.monotonic() - began
    before = (begun.finished or {}).get("seconds_per_picture")
    totals = Totals(asked.seed)
    for unit in planned:
        totals.add(unit, pq.read_table(pa.BufferReader(store.read(unit.path)), schema=SCHEMA))
    record = _record(begun.request, totals, store) | {
        "took_it_for": begun.took_it_for or None,
        "rows_in_source": begun.rows_in_source,
        "judge": None if choice is None else {"sha256": choice.sha256, "harm_limits": asdict(harm)},
        "seconds": round(seconds, 3),
        "seconds_per_picture": round(seconds / looked, 5) if looked else before,
    }
    shown = {
        outcome: [_shown(assessor, example) for example in examples] for outcome, examples in totals.examples.items()
    }
    record["estimate"] = _estimate(resolved, record, totals, shown)
    store.write(REPORT, render_assessment(record, totals.examples, shown).encode())
    store.write(RECORD, json.dumps(record, indent=2).encode())  # last: its presence means that all is done
    store.delete(UNFINISHED)
    return record


def _assess(todo: Sequence[Unit], assessor: Assessor, store: Store, threads: int, line: Line) -> None:
    calls = (partial(assessor.assess, piece) for unit in todo for piece in unit.pieces)
    pool = DaemonThreads[Rows](threads)
    try:
        done = _in_order(pool, calls, AHEAD * threads)
        for unit in todo:
            rows: Rows = []
            for found in islice(done, len(unit.pieces)):
                rows += found
                line.advance(len(found))
            store.write(unit.path, encode_table(pa.Table.from_pylist(rows, schema=SCHEMA), len(rows)))
    finally:
        pool.close(patience=0)


def _in_order(pool: DaemonThreads[Rows], calls: Iterator[Callable[[], Rows]], ahead: int) -> Iterator[Rows]:
    """The results of the calls in their order; at most `ahead` are in hand, so that results do not pile up."""
    waiting = deque(pool.submit(call) for call in islice(calls, ahead))
    while waiting:
        yield waiting.popleft().result()
        waiting.extend(pool.submit(call) for call in islice(calls, 1))


def _record(request: dict[str, Any], totals: Totals, store: Store) -> dict[str, Any]:
    table, duplicates = totals.duplicates()
    store.write(DUPLICATES, encode_table(table, row_group_rows=65_536))
    pictures = totals.pictures.total()
    return {
        "schema": 1,
        "state": "complete",
        **request,
        "counts": {
            "pictures": pictures,
            "faces": totals.faces.total(),
            "selected": sum(totals.pictures[outcome] for outcome in CHANGED),
            "duplicates": duplicates,
        },
        "outcomes": dict(totals.pictures.most_common()),
        "face_outcomes": dict(totals.faces.most_common()),
        "presets": dict(totals.presets.most_common()),
        "errors": dict(totals.errors.most_common()),
        "histograms": totals.histograms,
        "versions": installed(PACKAGES),
        "code": running_code(),
        "report": redact(store.url(REPORT)),
    }


def _shown(assessor: Assessor, example: Any) -> Any:
    """The pixels of an example; None if its picture cannot be read any more."""
    shard, index = example.unit.place(example.source_row)
    try:
        picture, crops = assessor.show(shard, index)
    except Exception:  # whatever became of the source meanwhile: no example is worth the assessment
        return None
    return picture if example.face is None else crops[example.face]


def _estimate(
    resolved: ResolvedRun, record: dict[str, Any], totals: Totals, shown: dict[str, list[Any]]
) -> dict[str, Any]:
    """Seconds that a restore would take on this machine with one worker."""
    from tasks.assessment.estimate import seconds_per_face

    crops = [crop for outcome, all_shown in shown.items() if outcome != "none_found" for crop in all_shown]
    per_face = seconds_per_face(resolved.method, [crop for crop in crops if crop is not None])
    if per_face is None:
        return {"seconds_per_face": None, "seconds_all": None, "seconds_selected": None}
    looking, counts = record["seconds_per_picture"] or 0.0, record["counts"]
    return {
        "seconds_per_face": round(per_face, 4),
        "seconds_all": round(looking * counts["pictures"] + per_face * totals.network_faces, 1),
        "seconds_selected": round(looking * counts["selected"] + per_face * totals.network_faces_selected, 1),
    }
