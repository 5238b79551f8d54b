"""Runs with other settings do not share a destination."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bfr_models.errors import UsageError
from tasks.config.resolve import resolve_run
from tasks.config.restore import RestoreRun
from tasks.storage.store import Store
from tests import support


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"method": "faulty"}, "method.method: expected \"passthrough\", found \"faulty\""),
        ({"preset": "ffhq512"}, "method.preset.size: expected 128, found 512"),
        ({"seed": 1}, "seed: expected 0, found 1"),
        ({"column": "gt"}, "column: expected \"image\", found \"gt\""),
        ({"gt_column": "gt"}, "gt_column: expected null, found \"gt\""),
        ({"min_identity": 0.5}, "min_identity: expected null, found 0.5"),
        ({"format": "webp", "quality": 80}, "quality: expected 95, found 80"),
        ({"shard_rows": 8}, "shard_rows: expected 4, found 8"),
        ({"source": "/elsewhere"}, "source: expected "),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("faulty")
def test_another_setting_on_the_same_destination_is_refused_by_name(
    change: dict[str, Any], named: str, source: Path
) -> None:
    support.plan_run(support.make_run(source.parent))
    with pytest.raises(UsageError) as refused:
        support.plan_run(support.make_run(source.parent, **change))
    assert named in str(refused.value)


def test_another_option_of_the_method_is_refused_by_name(source: Path) -> None:
    support.plan_run(support.make_run(source.parent, "difface", options={"steps": 2}))
    with pytest.raises(UsageError, match=r"method\.options\.steps: expected 2, found 3"):
        support.check_run(support.make_run(source.parent, "difface", options={"steps": 3}))


def test_other_weights_of_the_same_name_are_refused(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = support.make_run(source.parent, "estimator")
    support.plan_run(run)
    mine = resolve_run(run).method
    trained_on = {name: {**weight, "sha256": "f" * 64} for name, weight in mine.weights.items()}
    monkeypatch.setattr("tasks.config.resolve.resolve_method", lambda *_: replace(mine, weights=trained_on))
    with pytest.raises(UsageError, match=r"method\.weights\.\w+\.sha256: expected .*, found .ffff"):
        support.plan_run(run)


@pytest.mark.parametrize("change", [{"batch_size": 3}, {"actors": 2}, {"max_rejects": 1.0}, {"engine": "ray"}])
def test_what_does_not_change_the_output_may_change(change: dict[str, Any], source: Path) -> None:
    support.plan_run(support.make_run(source.parent))
    assert support.plan_run(support.make_run(source.parent, **change)).todo_count == 3


def test_a_destination_with_other_files_is_refused(source: Path) -> None:
    support.write_parquet(source.parent / "dst" / "data" / "mine.parquet", support.make_rows(1))
    with pytest.raises(UsageError, match=r"found data and no plan/spec\.json"):
        support.check_run(support.make_run(source.parent))


@pytest.mark.parametrize("path", ["report/index.html", "README.md", "current.json"])
def test_what_a_run_would_write_over_or_be_mixed_with_is_refused(path: str, source: Path) -> None:
    """What an assessment or a comparison, a folder of the user's own, and a reprocess archive leave there."""
    Store(str(source.parent / "dst")).write(path, b"mine")
    with pytest.raises(UsageError, match=f"found {re.escape(path)} and no"):
        support.check_run(support.make_run(source.parent))


@pytest.mark.parametrize("inside", ["", "/restored"])
def test_a_destination_inside_the_source_is_refused(inside: str, source: Path) -> None:
    with pytest.raises(UsageError, match="expected a destination outside"):
        support.check_run(support.make_run(source.parent, destination=f"{source}{inside}"))


def test_a_destination_inside_a_source_that_ends_in_a_slash_is_refused() -> None:
    with pytest.raises(UsageError, match="expected a destination outside"):
        support.check_run(
            RestoreRun(source="memory://scans/", destination="memory://scans/restored", method="estimator")
        )
