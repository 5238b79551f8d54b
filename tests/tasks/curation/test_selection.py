"""The best rows, and strata of equal size."""

from pathlib import Path
from typing import Any

import pytest

from tests import support
from tests.tasks.curation.curated import curated, dropped


@pytest.mark.parametrize("asked", [{"top_k": 3}, {"dedupe": 0.9999}, {"stratify": "who", "per_stratum": 2}])
def test_the_order_of_files_changes_nothing(tmp_path: Path, asked: dict[str, Any]) -> None:
    found = []
    for order in (1, -1):
        folder = tmp_path / str(order)
        rows = [
            row | {"id": f"{i}", "who": "ab"[i % 3 == 0], "n": i // 2} for i, row in enumerate(support.make_rows(8))
        ]
        for number, start in enumerate(range(0, 8, 4)[::order]):
            support.write_parquet(folder / "src" / f"{number}.parquet", rows[start : start + 4])
        support.finished_run(support.make_run(folder, recogniser="none"))
        _, kept = curated(folder / "dst", folder, by="n", **asked)
        found.append(sorted(row["id"] for row in kept))
    assert found[0] == found[1]


def test_strata_are_sampled_alike(hostile_run: Path, tmp_path: Path) -> None:
    _, rows = curated(hostile_run, tmp_path / "1", stratify="who")
    assert [row["who"] for row in rows].count("a") == [row["who"] for row in rows].count("b") == 5
    _, two = curated(hostile_run, tmp_path / "2", stratify="who", per_stratum=2, seed=1)
    assert sorted(row["who"] for row in two) == ["a", "a", "b", "b"]
    _, other = curated(hostile_run, tmp_path / "3", stratify="who", per_stratum=2, seed=2)
    assert {row["n"] for row in two} != {row["n"] for row in other}


@pytest.mark.parametrize("per_stratum", [None, 2])
def test_rows_without_a_stratum_are_dropped_and_do_not_count(per_stratum: int | None, tmp_path: Path) -> None:
    who = [None, "a", "a", "a", "b", "b", "b", "b"]
    rows = [row | {"who": name} for row, name in zip(support.make_rows(8), who, strict=True)]
    support.write_parquet(tmp_path / "src" / "a.parquet", rows)
    support.finished_run(support.make_run(tmp_path, recogniser="none"))
    record, kept = curated(tmp_path / "dst", tmp_path, stratify="who", per_stratum=per_stratum)
    each = per_stratum or 3
    assert sorted(row["who"] for row in kept) == each * ["a"] + each * ["b"]
    assert [row["id"] for row in dropped(tmp_path) if row["reason"] == "who is null"] == ["a.parquet#0"]
    assert record["steps"][1] == {"step": "who is null", "dropped": 1, "left": 7}
