"""The settings of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from tests import support


def test_a_timeout_that_threads_cannot_keep_is_refused(source: Path) -> None:
    with pytest.raises(ValidationError, match="expected no --shard-timeout with --engine local"):
        support.make_run(source.parent, engine="local", shard_timeout=2.0)


def test_paths_are_absolute_as_whoever_reads_them_later_is_elsewhere(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(source)
    monkeypatch.setenv("HOME", "/home/ada")
    run = support.make_run(
        source.parent,
        select="assessed",
        fid_reference="refs/ffhq.npz",
        detector="retinaface",
        detector_weights="~/retinaface.pth",
        destination="s3://bucket/out",
    )
    assert (run.select, run.fid_reference) == (f"{source}/assessed", f"{source}/refs/ffhq.npz")
    assert (run.detector_weights, run.destination) == ("/home/ada/retinaface.pth", "s3://bucket/out")
