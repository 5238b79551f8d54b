"""Closes a run when all its shards are committed: manifest, cleaned folders, statistics, report."""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from bfr_models.errors import BfrError
from bfr_models.metrics.identity_scale import scale_of
from bfr_models.metrics.independence import self_scored
from bfr_models.registry import methods
from tasks.config.code import installed, running_code
from tasks.config.licences import licences_in_use
from tasks.config.resolve import ResolvedRun
from tasks.report.run_card import write_card
from tasks.report.run_report import write_report
from tasks.runs import commits
from tasks.runs.damage import closing_record, derived_damage, described, inspect_shards, newest_plan
from tasks.runs.face_sizes import Sizes, face_sizes, too_small
from tasks.runs.layout import MANIFEST
from tasks.runs.manifest import Entry, manifest_entry, read_manifest, write_manifest
from tasks.runs.mending import keep_copy
from tasks.runs.packed import left_out_of
from tasks.runs.plan import Plan, latest_plan
from tasks.runs.record import RunRecord, write_record
from tasks.runs.sealed import seal
from tasks.runs.shards import from_table
from tasks.runs.single_writer import WARNING, learn_conditions
from tasks.runs.superseded import count_superseded
from tasks.scoring.embedding_sums import EmbeddingSums
from tasks.scoring.figures import figures
from tasks.scoring.frechet import distances
from tasks.scoring.statistics import Totals
from tasks.storage.store import Store

_log = logging.getLogger(__name__)

PACKAGES = ("bfr-pipeline", "torch", "diffusers", "numpy", "pyarrow", "ray", "prefect", "Pillow", "dlib-bin")


def finish_run(resolved: ResolvedRun, store: Store, started: datetime, left_out: Sequence[str] = ()) -> RunRecord:
    """Writes manifest.parquet, the report and run.json, and removes files that no commit names. Returns run.json."""
    plan = latest_plan(store)
    finished = closing_record(store, plan)
    derived = list(derived_damage(store, plan)) if finished else []
    if finished and not derived:
        changed = {  # what may differ between calls: --max-rejects, --protocol, what is left out
            "arguments": resolved.run.arguments,
            "protocol": figures(resolved.run.protocol, finished, finished["statistics"]),
            "warnings": [*_warnings(resolved, store, finished.get("face_sizes")), *left_out],
            "left_out": left_out_of(store),
        }
        if "superseded" not in finished["totals"]:  # of an earlier version
            changed |= _of_files(store, plan, read_manifest(store), finished["totals"])
        return finished | changed
    totals, sums, manifest, keep = Totals(), EmbeddingSums(), [], set[str]()
    live = plan.commits
    _require_done(plan, plan.number)
    if finished:
        _log.warning("%s: %s; made again from the commits", store, described(derived))
        keep_copy(store, MANIFEST)
    for record in _sound_records(store, plan, resolved):
        totals.add(record)
        sums.add(record)
        manifest.append(manifest_entry(record))
        keep.update(commits.files_of(record).values())
    orphans = commits.orphans(store, set(live), keep)
    _require_done(latest_plan(store), plan.number)  # a newer plan is there before its first file: none of these
    if newest_plan(store, plan) > plan.number:
        raise BfrError(
            f"expected plan {plan.number} of {store} to be the newest, found commits of a newer one, now gone; run "
            "the same command again, it makes the plan again"
        )
    write_manifest(store, manifest)
    commits.vacuum(store, orphans)  # after the manifest: readers go by it, and what it names must be there
    features = [(entry["shard"], entry["features"]) for entry in manifest if entry["features"]]
    measured = distances(resolved.run, store, resolved.measures, sums, features)
    record = _run_record(resolved, store, plan, totals, measured, started)
    record["warnings"] += left_out
    record |= _of_files(store, plan, manifest, record["totals"])
    record = seal(record)
    write_report(store, plan, manifest, record, resolved.run)
    write_card(store, record)
    write_record(store, record)  # last: its presence means that the run is finished
    return record


def _sound_records(store: Store, plan: Plan, resolved: ResolvedRun) -> Iterator[commits.Record]:
    """The live commits. BfrError for one that does not hold: its shard has to be done again first."""
    for found in inspect_shards(store, plan, resolved.settings, deep=resolved.run.deep):
        if found.damage or found.record is None:
            raise BfrError(
                f"expected all that the commits of {store} promise, found damage ({described(found.damage)}); run "
                "the same command again, it restores what is damaged"
            )
        yield found.record


def _require_done(plan: Plan, number: int) -> None:
    if plan.todo_count or plan.number != number:
        raise BfrError(
            f"expected plan {number} with all its shards done, found plan {plan.number} with {plan.todo_count} to do: "
            "the same command is running elsewhere and has planned more; run it again when that is done"
        )


def _run_record(
    resolved: ResolvedRun, store: Store, plan: Plan, totals: Totals, measured: dict[str, Any], started: datetime
) -> RunRecord:
    run, method, settings, now = resolved.run, resolved.method, resolved.settings, datetime.now(UTC)
    statistics = totals.statistics(
        recognised=settings["recogniser"] is not None,
        has_gt=run.gt_column is not None,
        has_lpips=settings["measures"]["lpips"] is not None,
        extra=settings["measures"]["extra"],
    )
    statistics |= measured
    scale = scale_of(resolved.recogniser.name) if resolved.recogniser else None
    sizes = face_sizes(totals.sides, method.preset.size)
    return {
        "schema": 1,
        "state": "complete",
        "plan": plan.number,
        "method": {
            "name": run.method,
            "preset": method.preset.name,
            "size": method.preset.size,
            "summary": methods()[run.method].summary,
            "fingerprint": method.fingerprint,
            "options": settings["method"]["options"],
            "weights": settings["method"]["weights"],
            "paper": methods()[run.method].paper,
            "licence": method.preset.licence,
        },
        "recogniser": settings["recogniser"],
        "identity_scale": None if scale is None else asdict(scale),
        "care": resolved.care.description,
        "identity_gate": None if resolved.gate is None else asdict(resolved.gate),
        "licences": licences_in_use(resolved),
        "measures": settings["measures"],
        "protocol": figures(run.protocol, settings, statistics),
        "arguments": run.arguments,
        "selection": None if resolved.selection is None else dict(resolved.selection),
        "seed": run.seed,
        "versions": {"python": platform.python_version(), **installed(PACKAGES)},
        "code": running_code(),
        "totals": {
            "rows": totals.rows,
            "restored": totals.restored,
            "rejected": totals.rejected,
            "changed": totals.changed,
            "faces": totals.faces,
            "shards": plan.shards.num_rows,
            "accelerator_seconds": round(totals.accelerator_seconds, 3),
            "wall_seconds": round((now - started).total_seconds(), 3),
        },
        "precisions": dict(totals.precisions.most_common()),  # what the networks computed in, by rows
        "timings": totals.timings.to_json(),
        "warnings": list(_warnings(resolved, store, sizes)),
        "rejects": dict(totals.rejects.most_common()),
        "outcomes": dict(totals.outcomes.most_common()),
        "face_sizes": sizes,
        "statistics": statistics,
        "distributions": {name: summary.to_report() for name, summary in totals.distributions.items() if summary.n},
        "examples": totals.examples.to_json(),
        "started": started.isoformat(timespec="seconds"),
        "finished": now.isoformat(timespec="seconds"),
    }


def _of_files(store: Store, plan: Plan, manifest: Sequence[Entry], totals: dict[str, Any]) -> dict[str, Any]:
    """What is to be known of a run that was given files: which rows a newer version of their file has superseded, and
    the files without a row."""
    superseded = count_superseded(store, from_table(plan.shards), {entry["shard"]: entry for entry in manifest})
    return {
        "totals": totals | {"superseded": superseded.rows},
        "superseded_rejects": dict(superseded.rejects.most_common()),
        "left_out": left_out_of(store),
    }


def _warnings(resolved: ResolvedRun, store: Store, sizes: Sizes | None) -> Iterator[str]:
    """What the run's readers should know of. `sizes` are those of its faces."""
    if not learn_conditions(store):
        yield WARNING
    if (selection := resolved.selection) is not None:
        others = f"{selection['left_out']} others of the assessment" if selection["left_out"] else "all others"
        yield (
            f"{selection['selected']} rows were selected; {others} are no part of this run and stay as they are in the "
            "source"
        )
    if warning := self_scored(resolved.method, resolved.settings["recogniser"]):
        yield warning
    if resolved.care.warning:
        yield resolved.care.warning
    if resolved.run.task == "restore" and (warning := too_small(resolved.method, sizes)):
        yield warning
