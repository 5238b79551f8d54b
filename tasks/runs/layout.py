"""The names of everything that a run leaves on disk, relative to its destination. No other module spells them out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DATA, FEATURES, REJECTED = "data", "features", "rejected"
FOLDERS = (DATA, FEATURES, REJECTED)
"""The folders of the files that commits name: `<folder>/<commit>-<attempt>.parquet`."""

COMMITS = "commits"
PLAN = "plan"
SPEC = "plan/spec.json"
STORAGE_FACTS = "plan/storage.json"  # whether the store has conditional puts
OWNER = "plan/owner.json"  # the driver that holds the run, on a store without them
MANIFEST = "manifest.parquet"
RECORD = "run.json"
REPORT = "report/index.html"
CARD = "README.md"

SOURCE = "source"  # the images, packed, of a run that was given files
PACKED = "_packed"  # in it: what was packed; no reader takes a name with `_` for the dataset's
SUMS, LEFT_OUT = "_sums.parquet", "_left_out.parquet"  # beside the parts of a packing: lists of its files

REVIEW = "review"  # what people have decided about the faces
DECISIONS = "review/decisions"  # create-only records, which nothing removes

DAMAGED = "damaged"  # copies of what was found damaged

POINTER = "current.json"
GENERATIONS = "generations"

CURATION = "curation.json"
CURATION_UNFINISHED = "curation.unfinished.json"


def plan_file(number: int) -> str:
    """The file of a plan; the plan with the highest number is the live one."""
    return f"{PLAN}/{number:05d}.parquet"


def commit_name(shard_id: str, generation: int = 0) -> str:
    """The name that the commit of a shard's generation goes by."""
    return f"{shard_id}.{generation}" if generation else shard_id


def commit_file(commit: str) -> str:
    """The record that marks a shard as done: no record, not done."""
    return f"{COMMITS}/{commit}.json"


def shard_file(folder: str, commit: str, attempt: str) -> str:
    """A file of one attempt at a shard; no other attempt writes to it."""
    return f"{folder}/{commit}-{attempt}.parquet"


def has_own_source(arguments: Mapping[str, Any]) -> bool:
    """Whether a run with these arguments restores images that were packed into it."""
    source, destination = (str(arguments.get(name, "")).rstrip("/") for name in ("source", "destination"))
    return source == f"{destination}/{SOURCE}"


def packed_file(number: int) -> str:
    """A record of what was packed, relative to `SOURCE`."""
    return f"{PACKED}/{number:05d}.parquet"


def decision_file(name: str) -> str:
    """A record of what a reviewer has decided at once."""
    return f"{DECISIONS}/{name}.json"


def decisions_bundle(count: int, digest: str) -> str:
    """Copies of that many records of decisions in one file, which is read instead of them."""
    return f"{REVIEW}/bundle-{count:09}-{digest}.json"


def review_index(digest: str) -> str:
    """The faces of a run as a review sorts and filters them, made from the data files of one manifest."""
    return f"{REVIEW}/faces-{digest}.parquet"


def damaged_file(path: str, digest: str) -> str:
    """Where a damaged file is kept. The name ends in the hash, so that no reader takes it for a Parquet file."""
    return f"{DAMAGED}/{path}.{digest}"


def generation_folder(name: str) -> str:
    """The folder of one generation's run, below the destination of `bfr reprocess`."""
    return f"{GENERATIONS}/{name}"


def comparison_file(old: str | None, new: str, ending: str = "json") -> str:
    """The comparison that decided the switch from one generation to another."""
    return f"comparisons/{old}..{new}.{ending}"
