"""Whatever happens to a file of a run: verify names it, a resume redoes it or says what to do, repair mends it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from bfr_models.errors import BfrError
from flows.repair_dataset import repair_dataset
from flows.restore_dataset import restore_without_prefect
from tasks.config.curate import CurateRun
from tasks.config.resolve import resolve_run
from tasks.config.restore import RestoreRun
from tasks.curate_run import curate_run
from tasks.explain_row import explain_row
from tasks.export.rows import open_export
from tasks.export_run import export_run
from tasks.render_report import render_report
from tasks.restore_shards import restore_shards, worker_pool
from tasks.review.index import make_index
from tasks.runs.finished_run import open_run
from tasks.runs.record import RunRecord
from tasks.verify_run import verify_run
from tests import support

ROWS = 12
FOUND = {
    "data": "data/*.parquet",
    "rejected": "rejected/*.parquet",
    "commit": "commits/*.json",
    "spec": "plan/spec.json",
    "plan": "plan/00000.parquet",
    "storage": "plan/storage.json",
    "record": "run.json",
    "manifest": "manifest.parquet",
    "report": "report/index.html",
}
ONLY_FINISHED = {"record", "manifest", "report"}
NO_DAMAGE = {("storage", "removed"), ("storage", "another's"), ("report", "one byte"), ("report", "another's")}
"""The store is asked again; the others are a page that opens."""


def one_byte(path: Path, _other: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 8] ^= 1
    path.write_bytes(content)


FAULTS: dict[str, Callable[[Path, Path], object]] = {
    "removed": lambda path, _: path.unlink(),
    "emptied": lambda path, _: path.write_bytes(b""),
    "truncated": lambda path, _: path.write_bytes(path.read_bytes()[:-12]),
    "one byte": one_byte,
    "another's": lambda path, other: shutil.copyfile(other, path),
    "invalid": lambda path, _: path.write_bytes(b"\xff\xfe\x00 no record of ours"),
}


@dataclass
class Runs:
    """The same run, finished and unfinished, another one, and the bytes that it restores."""

    folder: Path
    images: dict[str, bytes]

    def run(self, destination: Path) -> RestoreRun:
        return support.make_run(self.folder, destination=str(destination), recogniser="none", max_rejects=1.0)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("runs")
    rows = [row | {"id": f"row-{i}"} for i, row in enumerate(support.make_rows(ROWS, side=24))]
    for i in (1, 5, 9):
        rows[i]["image"] = {"bytes": b"broken", "path": None}
    support.write_parquet(folder / "src" / "a.parquet", rows)
    runs = Runs(folder, {})
    restore_without_prefect(runs.run(folder / "finished"))
    runs.images |= support.restored_images(folder / "finished")
    unfinished = runs.run(folder / "unfinished")
    plan = support.plan_run(unfinished)
    with worker_pool(resolve_run(unfinished)) as pool:
        restore_shards(pool, list(plan.todo)[:2], lambda _: None)
    support.write_parquet(folder / "other" / "a.parquet", support.make_rows(8, side=24))
    other = {"source": str(folder / "other"), "seed": 1}
    restore_without_prefect(runs.run(folder / "another").model_copy(update=other))
    return runs


def cases() -> Iterator[object]:
    """Every kind of file, every fault; one fault of each file unless long tests are asked for."""
    for number, file in enumerate(FOUND):
        for place, fault in enumerate(FAULTS):
            for state in ("finished",) if file in ONLY_FINISHED else ("finished", "unfinished"):
                if (file, fault) not in NO_DAMAGE:
                    marks = () if place == number % len(FAULTS) else (pytest.mark.long,)
                    yield pytest.param((file, fault, state), marks=marks, id=f"{file}, {fault}, {state}")


@pytest.fixture
def damaged(runs: Runs, tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, str]:
    """A run with one thing wrong, and the path of that."""
    file, fault, state = request.param
    destination = tmp_path / "dst"
    shutil.copytree(runs.folder / state, destination)
    first, *others = sorted(destination.glob(FOUND[file]))
    FAULTS[fault](first, others[0] if others else next((runs.folder / "another").glob(FOUND[file])))
    return destination, first.relative_to(destination).as_posix()


def on_threads(run: RestoreRun) -> RunRecord:
    """What nothing says any more, a run's engine among it, is as by default: Ray, which takes its time to start."""
    return restore_without_prefect(run.model_copy(update={"engine": "local"}))


def refusal(run: RestoreRun) -> str:
    """Why a run is not resumed; "" if it is, and ends well."""
    try:
        restore_without_prefect(run)
    except BfrError as error:
        return str(error)
    return ""


def assert_whole(runs: Runs, destination: Path) -> None:
    assert verify_run(str(destination))["problems"] == []
    support.assert_whole(destination, ROWS)
    assert support.restored_images(destination) == runs.images


@pytest.mark.parametrize("damaged", list(cases()), indirect=True)
def test_verify_names_it(runs: Runs, damaged: tuple[Path, str]) -> None:
    destination, path = damaged
    before = support.snapshot(destination)
    problems = verify_run(str(destination))["problems"]
    assert any(path.startswith(problem["where"]) for problem in problems) or is_parquets_own(
        destination / path, runs, path
    )
    assert support.snapshot(destination) == before


def is_parquets_own(changed: Path, runs: Runs, path: str) -> bool:
    """Whether the byte that was hit is one that no reader looks at."""
    return changed.suffix == ".parquet" and pq.read_table(changed).equals(
        pq.read_table(runs.folder / "finished" / path)
    )


@pytest.mark.parametrize("damaged", list(cases()), indirect=True)
def test_a_resume_with_deep_mends_it_or_names_it_and_what_to_do(runs: Runs, damaged: tuple[Path, str]) -> None:
    destination, path = damaged
    run = runs.run(destination).model_copy(update={"deep": True})
    if refused := refusal(run):
        assert path in refused and ("bfr repair" in refused or "holds a run with other settings" in refused)
        repair_dataset(str(destination), restore=on_threads)
    assert_whole(runs, destination)


@pytest.mark.parametrize("damaged", list(cases()), indirect=True)
def test_repair_mends_it_and_keeps_what_was_damaged(runs: Runs, damaged: tuple[Path, str]) -> None:
    destination, path = damaged
    there = (destination / path).read_bytes() if (destination / path).exists() else None
    outcome = repair_dataset(str(destination), restore=on_threads)
    if not outcome["ok"]:  # unfinished, and by nothing that is damaged; or nothing says what it was started with
        assert "run the `bfr restore` command" in outcome["next"]
        restore_without_prefect(runs.run(destination))
    assert_whole(runs, destination)
    kept = [copy.read_bytes() for copy in (destination / "damaged").rglob("*") if copy.is_file()]
    stays = path == "report/index.html" or path.startswith("plan/0")  # the one is made anew, the other superseded
    assert there is None or there in kept or stays or not outcome["found"]


@pytest.mark.parametrize("fault", ["removed", "truncated"])
@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("data", ("explain", "report", "curate", "export", "review")),
        ("rejected", ("explain", "report", "curate", "review")),
    ],
)
def test_what_reads_the_rows_names_a_damaged_file_and_what_to_do(
    runs: Runs, tmp_path: Path, kind: str, names: tuple[str, ...], fault: str
) -> None:
    destination = tmp_path / "dst"
    shutil.copytree(runs.folder / "finished", destination)
    path = min(destination.glob(FOUND[kind]))
    FAULTS[fault](path, path)
    run, made = str(destination), str(tmp_path / "made")
    readers: dict[str, Callable[[], object]] = {
        "explain": lambda: explain_row(run, "row-0" if kind == "data" else "no such row"),
        "report": lambda: render_report(run),
        "curate": lambda: curate_run(CurateRun(source=run, destination=made)),
        "export": lambda: export_run(run, made),
        "review": lambda: list(make_index(open_export(run), None)),
    }
    for name in names:
        with pytest.raises(BfrError) as raised:
            readers[name]()
        assert path.name in str(raised.value) and f"`bfr repair {run}`" in str(raised.value), name


@pytest.mark.parametrize("columns", [None, ["restored"]])
def test_a_file_that_is_damaged_while_a_run_is_open_is_named(
    runs: Runs, tmp_path: Path, columns: list[str] | None
) -> None:
    shutil.copytree(runs.folder / "finished", tmp_path / "dst")
    run = open_run(str(tmp_path / "dst"))
    path = min((tmp_path / "dst").glob(FOUND["data"]))
    FAULTS["truncated"](path, path)
    with pytest.raises(BfrError, match=f"{path.name}.*`bfr repair {tmp_path / 'dst'}`"):
        list(run.read(np.arange(run.table.num_rows), columns))
