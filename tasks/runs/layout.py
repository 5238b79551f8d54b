"""The names of everything that a run leaves on disk, relative to its destination. No other module spells one out."""

from __future__ import annotations

DATA, FEATURES, REJECTED = "data", "features", "rejected"
FOLDERS = (DATA, FEATURES, REJECTED)
"""Folders whose files commits name: `<folder>/<commit>-<attempt>.parquet`."""

COMMITS = "commits"
PLAN = "plan"
SPEC = "plan/spec.json"
STORAGE_FACTS = "plan/storage.json"  # whether the store knows conditional puts
OWNER = "plan/owner.json"  # which driver holds the run, on stores that do not
MANIFEST = "manifest.parquet"
RECORD = "run.json"
REPORT = "report/index.html"

POINTER = "current.json"
GENERATIONS = "generations"

CURATION = "curation.json"
CURATION_UNFINISHED = "curation.unfinished.json"


def plan_file(number: int) -> str:
    """The file of one plan; the highest number is the live one."""
    return f"{PLAN}/{number:05d}.parquet"


def commit_name(shard_id: str, generation: int = 0) -> str:
    """What a generation of a shard is called among the commits."""
    return f"{shard_id}.{generation}" if generation else shard_id


def commit_file(commit: str) -> str:
    """The record that says that a shard is done."""
    return f"{COMMITS}/{commit}.json"


def shard_file(folder: str, commit: str, attempt: str) -> str:
    """A file of one attempt at a shard: no two attempts write the same."""
    return f"{folder}/{commit}-{attempt}.parquet"


def generation_folder(name: str) -> str:
    """The run of one generation, below what `bfr reprocess` was given as its destination."""
    return f"{GENERATIONS}/{name}"


def comparison_file(old: str | None, new: str, ending: str = "json") -> str:
    """What the switch from one generation to another was decided by."""
    return f"comparisons/{old}..{new}.{ending}"
