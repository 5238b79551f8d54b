"""Where the time of a run went, from what its commit records say: `timings` of run.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

METHOD, WAIT, IDLE = "method", "wait", "idle"
STAGES = {
    "read": "the shard's rows are read, and images that are addresses fetched",
    "decode": "images are decoded",
    "detect": "faces are found in photos",
    "align": "faces are cut out, and put together to batches",
    METHOD: "the method restores faces",
    "judge": "it is drawn what a face may become, and the judge says what that is worth",
    "score": "the recogniser and the measures look at them",
    "paste": "faces are put back, photos are enlarged",
    "encode": "images are encoded",
    "write": "the shard's files are made, uploaded and committed",
    WAIT: "the accelerator waits for faces",
    IDLE: "no shard in hand",
}
"""The stages of a worker, in the order of a row's way through them. They overlap, each in threads of its own; `method`,
`wait` and `idle` are the accelerator's, and add up to the worker's time."""

Span = tuple[str, float, float, str]
"""(stage, start, seconds, thread)"""


@dataclass
class _Worker:
    began: float
    ended: float


@dataclass
class Timings:
    """Sums over the commit records of a run. Those of earlier versions are not counted: they have no timings, or such
    of another kind."""

    shards: int = 0
    stages: Counter[str] = field(default_factory=Counter)
    _workers: dict[str, _Worker] = field(default_factory=dict)

    def add(self, record: Mapping[str, Any]) -> None:
        """Adds one shard, in any order."""
        if "began" not in (found := record.get("timings") or {}):
            return
        self.shards += 1
        self.stages.update(found["stages"])
        worker = self._workers.setdefault(found["worker"], _Worker(found["began"], found["ended"]))
        worker.began, worker.ended = min(worker.began, found["began"]), max(worker.ended, found["ended"])

    def to_json(self) -> dict[str, Any] | None:
        """{stages: {name: s}, worker_seconds, work_seconds, workers, most_workers, shards, busy_share}; None if no
        record has any.

        `work_seconds` is how long there was a worker at all, in all calls of the run together: its rows per second.
        `most_workers` is how many of the workers there were at once: they come and go with the nodes of a cluster.
        `busy_share` is the share of the workers' time, from the loaded method to the last commit, in which the
        accelerator was at work.
        """
        if not self.shards:
            return None
        workers = self._workers.values()
        seconds = sum(worker.ended - worker.began for worker in workers)
        return {
            "stages": {name: round(self.stages[name], 3) for name in STAGES},
            "worker_seconds": round(seconds, 3),
            "work_seconds": round(_covered(workers), 3),
            "workers": len(workers),
            "most_workers": _most_at_once(workers),
            "shards": self.shards,
            "busy_share": round(self.stages[METHOD] / seconds, 4) if seconds > 0 else None,
        }


def _most_at_once(workers: Iterable[_Worker]) -> int:
    turns = sorted([(each.began, 1) for each in workers] + [(each.ended, -1) for each in workers])
    return max(accumulate(change for _, change in turns))


def _covered(workers: Iterable[_Worker]) -> float:
    seconds, ended = 0.0, 0.0
    for worker in sorted(workers, key=lambda each: each.began):
        seconds += max(0.0, worker.ended - max(worker.began, ended))
        ended = max(ended, worker.ended)
    return seconds
