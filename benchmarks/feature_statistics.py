"""What exact FID costs: memory and time over 50,000 faces, and the merge of 1,000 shards, at 2048 features.

    OMP_NUM_THREADS=1 python benchmarks/feature_statistics.py

Features are synthetic: like an Inception's they are non-negative, with falling variance. Peak memory is that of the
whole process, with torch loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from header import measured
from numpy.typing import NDArray

from bfr_models.metrics.frechet import INCEPTION, FeatureSource, FeatureStatistics, frechet_distance

RESULTS = Path(__file__).parent / "results"
FEATURES = 2048
SOURCE = FeatureSource(INCEPTION)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--shard-rows", type=int, default=500)
    parser.add_argument("--shards", type=int, default=1000, help="to merge")
    args = parser.parse_args()
    facts: dict[str, object] = {
        "measured": measured(),
        "features": FEATURES,
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "numpy": np.__version__,
    }
    facts |= _distance(args.rows, args.shard_rows) | _merge(args.shards)
    facts["peak_rss_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(facts, indent=2)
    (RESULTS / "feature_statistics.json").write_text(text + "\n")
    print(text)


def _distance(rows: int, shard_rows: int) -> dict[str, object]:
    started = time.monotonic()
    a, b = (FeatureStatistics.fold(_shards(rows, shard_rows, seed)) for seed in (0, 1))
    folded = time.monotonic()
    distance = frechet_distance(a.gaussian(), b.gaussian())
    return {
        "rows_per_side": rows,
        "shard_rows": shard_rows,
        "statistics_seconds_per_side": round((folded - started) / 2, 1),
        "distance_seconds": round(time.monotonic() - folded, 1),
        "fid": distance.value,
    }


def _merge(shards: int) -> dict[str, object]:
    """Merges ready statistics; each comes from its bytes, as from a file, under another key."""
    data = [state.to_bytes() for state in _shards(8 * 64, 64, 2)]
    seconds = {"read": 0.0, "merged": 0.0}

    def states() -> Iterator[FeatureStatistics]:
        for number in range(shards):
            started = time.monotonic()
            state = FeatureStatistics.from_bytes(data[number % len(data)])
            seconds["read"] += time.monotonic() - started
            yield FeatureStatistics(state.source, state.n, state.mean, state.scatter, frozenset([f"{number:06}"]))

    started = time.monotonic()
    merged = FeatureStatistics.fold(states())
    seconds["merged"] = time.monotonic() - started - seconds["read"]
    return {
        "shards_merged": len(merged.keys),
        "merge_seconds": round(seconds["merged"], 1),
        "read_seconds": round(seconds["read"], 1),
        "bytes_per_shard": len(data[0]),
    }


def _shards(rows: int, shard_rows: int, seed: int) -> Iterator[FeatureStatistics]:
    rng = np.random.default_rng(seed)
    spread = (1 / np.sqrt(np.arange(1, FEATURES + 1))).astype(np.float32)
    for start in range(0, rows, shard_rows):
        n = min(shard_rows, rows - start)
        features: NDArray[np.float32] = np.abs(rng.standard_normal((n, FEATURES), dtype=np.float32)) * spread
        yield FeatureStatistics.from_features(features, SOURCE, f"{start:09}")


if __name__ == "__main__":
    main()
