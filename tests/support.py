"""Shared by the tests of the engine: small datasets, runs over them, and readers of what a run wrote."""

from __future__ import annotations

import io
import json
import random
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from bfr_models.pixels import Uint8Image
from bfr_models.types import NetworkChoice
from tasks.config.reprocess import ReprocessRun
from tasks.config.resolve import resolve_run
from tasks.config.restore import RestoreRun
from tasks.datasets.image_column import IMAGE
from tasks.plan_shards import plan_shards
from tasks.runs.plan import Plan
from tasks.runs.shards import Shard
from tasks.runs.spec import check_destination
from tasks.storage.store import Store

ROOT = Path(__file__).parent.parent
BFR = (sys.executable, "-c", "import sys; sys.argv[0] = 'bfr'; from flows.cli.main import main; main()")
"""The command of this very tree, whatever is installed."""
SIDE = 96
Row = dict[str, Any]


def portrait(number: int, side: int = SIDE) -> Uint8Image:
    """A synthetic face, lit from one side, with eyes and a mouth; each number gives another."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    light = 0.6 + 0.4 * np.cos(x * 2 + number) * np.cos(y * 1.5)
    skin = np.where((x / 0.7) ** 2 + (y / 0.95) ** 2 < 1, light, 0.2 + 0.01 * (number % 10))
    for cx, cy, w, h in ((-0.3, -0.2, 0.12, 0.07), (0.3, -0.2, 0.12, 0.07), (0.0, 0.5, 0.3, 0.06)):
        skin[((x - cx) / w) ** 2 + ((y - cy) / h) ** 2 < 1] = 0.1
    tint = np.array([230, 180 + number % 40, 150])
    return (skin[..., None] * tint).astype(np.uint8)


def encoded(pixels: Uint8Image, form: str = "png", **options: Any) -> bytes:
    Image.fromarray(pixels).save(file := io.BytesIO(), form, **options)
    return file.getvalue()


def decoded(data: bytes) -> Uint8Image:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def make_rows(count: int, first: int = 0, side: int = SIDE, **columns: Any) -> list[Row]:
    """Rows with a valid image each; `columns` are the same in all of them."""
    return [
        {"image": {"bytes": encoded(portrait(first + i, side)), "path": f"{i}.png"}, **columns} for i in range(count)
    ]


def write_parquet(path: Path, content: Iterable[Row], group_rows: int = 4, schema: pa.Schema | None = None) -> Path:
    """A Parquet file of rows, in small row groups."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(list(content), schema=schema)
    if schema is None:
        table = table.set_column(table.schema.get_field_index("image"), "image", table["image"].cast(IMAGE))
    pq.write_table(table, path, row_group_size=group_rows)
    return path


def make_run(folder: Path, method: str = "passthrough", **settings: Any) -> RestoreRun:
    """A run from `folder`/src to `folder`/dst, on threads of this process unless another engine is given."""
    defaults = {"source": str(folder / "src"), "destination": str(folder / "dst"), "engine": "local", "shard_rows": 4}
    defaults |= {} if settings.get("mask_column") or settings.get("gt_column") else {"input": "faces"}
    return RestoreRun(**{**defaults, "method": method, **settings})


def plan_run(run: RestoreRun) -> Plan:
    """What the recipe does first: names, then the plan."""
    return plan_shards(resolve_run(run), Store(run.destination))


def check_run(run: RestoreRun) -> dict[str, Any]:
    """What the command does before anything starts; the run's settings."""
    resolved = resolve_run(run)
    check_destination(resolved, Store(run.destination))
    return resolved.settings


def make_shard(shard_id: str = "s", **facts: Any) -> Shard:
    """A shard of four rows of a file that is not there."""
    place = {"source": "/src/a.parquet", "name": "a.parquet", "version": "1", "row_group_start": 0, "row_group_stop": 1}
    return Shard(**{"id": shard_id, "first_row": 0, "rows": 4, **place, **facts})


def make_reprocess_run(folder: Path, **settings: Any) -> ReprocessRun:
    """The same, as a run of `bfr reprocess`."""
    return ReprocessRun(**{**make_run(folder).model_dump(exclude={"retire_deleted", "leave_out_damaged"}), **settings})


def finished_run(run: RestoreRun) -> dict[str, Any]:
    """Restores a run to its end, on threads of this process; its run.json."""
    # The recipe imports Prefect, which conftest.py has to give a home first.
    from flows.restore_dataset import restore_without_prefect

    return restore_without_prefect(run)


def restored(folder: Path, *arguments: Any, **settings: Any) -> tuple[dict[str, Any], pa.Table]:
    """(run.json, the data rows) of a run over `folder`/src."""
    run = make_run(folder, *arguments, **settings)
    return finished_run(run), read_table(Path(run.destination) / "data")


def finished_generation(run: ReprocessRun) -> dict[str, Any]:
    """Restores a generation to its end, as `finished_run` does; what `bfr reprocess` says of it."""
    from flows.reprocess import reprocess_without_prefect

    return reprocess_without_prefect(run)


def read_table(folder: Path) -> pa.Table:
    """All rows of a folder of a run, in the order of its files' shards in the plan."""
    manifest = pq.read_table(folder.parent / "manifest.parquet")[folder.name].to_pylist()
    return pa.concat_tables([pq.read_table(folder.parent / path) for path in manifest if path])


def read_ids(folder: Path) -> list[str]:
    return [row_id for path in sorted(folder.glob("*.parquet")) for row_id in pq.read_table(path)["id"].to_pylist()]


def restored_images(destination: Path) -> dict[str, bytes]:
    """The restored bytes of a run by row id."""
    data = read_table(destination / "data")
    return {row["id"]: row["restored"]["bytes"] for row in data.select(["id", "restored"]).to_pylist()}


def restored_images_at(url: str) -> dict[str, bytes]:
    """The same for any store, from a run that need not be finished."""
    store = Store(url)
    tables = (pq.read_table(io.BytesIO(store.read(path))) for path in store.list("data"))
    return {row["id"]: row["restored"]["bytes"] for table in tables for row in table.to_pylist()}


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Times and sizes of all files below a folder: it differs as soon as any of them was written."""
    stats = {str(path.relative_to(folder)): path.stat() for path in folder.rglob("*") if path.is_file()}
    return {path: (stat.st_mtime_ns, stat.st_size) for path, stat in stats.items()}


def read_record(destination: Path) -> dict[str, Any]:
    return json.loads((destination / "run.json").read_text())


def read_commits(destination: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((destination / "commits").glob("*.json"))]


def assert_whole(destination: Path, n_in: int) -> None:
    """Rows in = restored + rejected, each once, and no file that no commit names."""
    found = read_ids(destination / "data") + read_ids(destination / "rejected")
    assert len(found) == len(set(found)) == n_in
    named = {entry["path"] for commit in read_commits(destination) for entry in commit["files"].values()}
    there = {f"{folder}/{path.name}" for folder in ("data", "rejected") for path in (destination / folder).glob("*")}
    assert there == named


class MeanColours:
    """A recogniser that knows faces by the colours of their left and right halves."""

    name, sha256 = "mean colours", "0" * 64

    def embed(self, faces: list[Uint8Image]) -> NDArray[np.float32]:
        halves = [np.concatenate([half.mean((0, 1)) for half in np.array_split(face, 2, axis=1)]) for face in faces]
        return np.stack([half / np.linalg.norm(half) for half in halves]).astype(np.float32)


def use_mean_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of this process choose `MeanColours` and are scored by it."""
    monkeypatch.setattr("tasks.scoring.scorer.load_recogniser", lambda *_: MeanColours())
    chosen = NetworkChoice(MeanColours.name, MeanColours.sha256)
    monkeypatch.setattr("tasks.config.resolve.choose_recogniser", lambda _: chosen)


def now() -> datetime:
    return datetime.now(UTC)


def free_ports(count: int) -> int:
    """The first of consecutive ports that are free now, chosen at random so that parallel test runs rarely collide."""
    for first in range(random.SystemRandom().randrange(20000, 30000, 10), 32000, 10):  # Ray's workers take those below
        with ExitStack() as stack, suppress(OSError):
            for port in range(first, first + count):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise OSError("no free ports")


@contextmanager
def infra_server(name: str, port: int) -> Iterator[str]:
    """A server of `infra` in a folder of its own; yields what it prints once started."""
    folder, script = tempfile.mkdtemp(prefix="bfr-server-"), str(ROOT / "infra" / name)
    try:
        started = subprocess.run(
            [script, "start", folder, str(port)], check=True, timeout=120, stdout=subprocess.PIPE, text=True
        )
        yield started.stdout.strip()
    finally:
        subprocess.run([script, "stop", folder], check=False, timeout=60)
        shutil.rmtree(folder, ignore_errors=True)
