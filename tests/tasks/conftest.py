"""Shared by the tests of several rooms: finished runs, and stores of every kind."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest

from tests import support
from tests.s3_server import s3_server
from tests.tasks.curation.curated import HOSTILE, ROWS
from tests.tiled_photos import find_tiles


@pytest.fixture(scope="session")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 18 rows: hostile ids, each of two; row 3 is broken, rows 4 and 5 have the image of row 6."""
    folder = tmp_path_factory.mktemp("curate")
    rows = support.make_rows(ROWS)
    for i, row in enumerate(rows):
        picture = support.encoded(support.portrait(6 if i in (4, 5) else i))
        row |= {"id": HOSTILE[i % 9], "image": {"bytes": picture, "path": None}, "who": "ab"[i % 3 == 0], "n": i}
        row["gt"] = {"bytes": support.encoded(support.portrait(60 + i)), "path": None}
        row["source_file"] = f"scan-{i}"  # a name of ours
    rows[3]["image"] = {"bytes": b"no picture", "path": None}
    support.write_parquet(folder / "src" / "a.parquet", rows)
    support.finished_run(support.make_run(folder, gt_column="gt", recogniser="none"))
    return folder / "dst"


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 6 rows in one shard, with the embeddings of their faces and of their ground truth."""
    pytest.importorskip("dlib")
    folder = tmp_path_factory.mktemp("embedded")
    rows = [row | {"n": i} for i, row in enumerate(support.make_rows(6))]
    for i, row in enumerate(rows):
        row["gt"] = {"bytes": support.encoded(support.portrait(60 + i)), "path": None}
    support.write_parquet(folder / "src" / "a.parquet", rows)
    support.finished_run(
        support.make_run(folder, gt_column="gt", recogniser="dlib", keep_embeddings=True, shard_rows=6)
    )
    return folder / "dst"


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch, faulty: str) -> str:
    """A method that mirrors faces; they are found by `TileDetector`."""
    support.use_mean_colours(monkeypatch)
    find_tiles(monkeypatch)
    return faulty


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two files of 8 and 4 rows: three shards."""
    support.write_parquet(tmp_path / "src" / "b.parquet", support.make_rows(8))
    support.write_parquet(tmp_path / "src" / "c.parquet", support.make_rows(4, first=8))
    return tmp_path / "src"


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dispatcher waits for nothing."""
    monkeypatch.setattr("tasks.engine.dispatch.PAUSE_SECONDS", 0.0)
    monkeypatch.setattr("tasks.engine.dispatch.POLL_SECONDS", 0.01)


@pytest.fixture
def own_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries have a clock of their own, which goes on while they wait, and only then."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=sleep)
    for module in ("tenacity", "tenacity.nap", "tasks.storage.retry", "tasks.storage.waits"):
        monkeypatch.setattr(f"{module}.time", clock)


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A new bucket of an S3 server in this process. The servers of all modules share their buckets."""
    name = uuid.uuid4().hex
    with s3_server() as (host, port), pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir(name)
        yield f"s3://{name}"


@pytest.fixture(params=["local", "memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "root")
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}"
    return f"{request.getfixturevalue('bucket')}/{uuid.uuid4().hex}"
