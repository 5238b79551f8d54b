"""Where the time of a run went, from what its commit records say: `timings` of run.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

OTHER, IDLE = "other", "idle"
STAGES = {
    "read": "the shard's rows are read, and images that are addresses fetched",
    "decode": "images are decoded",
    "detect": "faces are found in photos",
    "align": "faces are cut out",
    "wait": "for the accelerator, which works on another shard, or for the memory of a large image",
    "method": "the method restores faces",
    "judge": "it is drawn what a face may become, and the judge says what that is worth",
    "score": "the recogniser and the measures look at them",
    "paste": "faces are put back, photos are enlarged",
    "encode": "images are encoded",
    "write": "the shard's files are made, uploaded and committed",
    OTHER: "what is none of these",
    IDLE: "no shard in hand",
}
"""The stages of a worker, in the order of a row's way through them."""

Span = tuple[str, float, float]
"""(stage, start, seconds)"""


@dataclass
class _Worker:
    began: float
    ended: float
    slots: dict[int, float] = field(default_factory=dict)  # the end of each one's last record


@dataclass
class Timings:
    """Sums over the commit records of a run. Records without timings, of earlier versions, are not counted.

    A worker with two shards in hand has two clocks: the stages then add up to twice its time.
    """

    shards: int = 0
    stages: Counter[str] = field(default_factory=Counter)
    _workers: dict[str, _Worker] = field(default_factory=dict)

    def add(self, record: Mapping[str, Any]) -> None:
        """Adds one shard, in any order."""
        if not (found := record.get("timings")):
            return
        self.shards += 1
        self.stages.update(found["stages"])
        ended, slot = found["ended"], found["slot"]
        began = ended - sum(found["stages"].values())
        worker = self._workers.setdefault(found["worker"], _Worker(began, ended))
        worker.began, worker.ended = min(worker.began, began), max(worker.ended, ended)
        worker.slots[slot] = max(worker.slots.get(slot, ended), ended)

    def to_json(self) -> dict[str, Any] | None:
        """{stages: {name: s}, worker_seconds, workers, most_workers, shards, busy_share}; None if no record has any.

        `most_workers` is how many of the workers there were at once: they come and go with the nodes of a cluster.
        `busy_share` is the share of the workers' time, from the loaded method to the last commit, in which the
        accelerator was at work. `idle` has the time at the end in which others still worked.
        """
        if not self.shards:
            return None
        workers = self._workers.values()
        seconds = sum(worker.ended - worker.began for worker in workers)
        tail = sum(worker.ended - ended for worker in workers for ended in worker.slots.values())
        stages = {name: self.stages[name] + (tail if name == IDLE else 0.0) for name in STAGES}
        busy = stages["method"]
        return {
            "stages": {name: round(value, 3) for name, value in stages.items()},
            "worker_seconds": round(seconds, 3),
            "workers": len(workers),
            "most_workers": _most_at_once(workers),
            "shards": self.shards,
            "busy_share": round(busy / seconds, 4) if seconds > 0 else None,
        }


def _most_at_once(workers: Iterable[_Worker]) -> int:
    turns = sorted([(each.began, 1) for each in workers] + [(each.ended, -1) for each in workers])
    return max(accumulate(change for _, change in turns))
