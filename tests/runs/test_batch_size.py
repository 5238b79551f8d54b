"""The batch size changes no pixel, and runs that differ only in it share a destination."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bfr_models.types import FaceBatch
from flows.restore_dataset import restore_without_prefect
from tests import faulty_methods, support


@pytest.mark.parametrize("memory", [1, 3, 100])
def test_a_run_gives_the_same_bytes_and_learns_what_fits(
    memory: int, faulty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore, sizes = faulty_methods.Faulty.restore, []

    def bounded(self: Any, batch: FaceBatch) -> FaceBatch:
        sizes.append(len(batch))
        if len(batch) > memory:
            raise torch.OutOfMemoryError
        return restore(self, batch)

    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(64, side=24), group_rows=64)
    restore_without_prefect(support.make_run(tmp_path, faulty, batch_size=8, shard_rows=64, recogniser="none"))
    monkeypatch.setattr(faulty_methods.Faulty, "restore", bounded)
    destination = str(tmp_path / "auto")
    record = restore_without_prefect(
        support.make_run(tmp_path, faulty, batch_size="auto", shard_rows=64, recogniser="none", destination=destination)
    )
    assert record["totals"]["restored"] == 64
    assert support.restored_images(tmp_path / "auto") == support.restored_images(tmp_path / "dst")
    assert sum(size > memory for size in sizes) <= 1  # a batch that does not fit is tried once
    assert np.mean(sizes[-4:]) <= memory


def test_runs_with_other_batches_share_a_destination(faulty: str, tmp_path: Path) -> None:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(4))
    restored = None
    for size in ("auto", 1, None):
        restore_without_prefect(support.make_run(tmp_path, faulty, batch_size=size, recogniser="none"))
        found = support.snapshot(tmp_path / "dst"), support.restored_images(tmp_path / "dst")
        assert found == (restored := restored or found), "the second and the third run have nothing to do"
    assert len(restored[1]) == 4
