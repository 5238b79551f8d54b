"""The commit protocol under any order of plans, attempts that die, rivals, changes, damage, repairs and vacuums.

Hypothesis chooses the steps and, where a promise breaks, finds the shortest way there. All of it is the real code, on a
disk, with workers of this process that die at a chosen write.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bfr_models.errors import BfrError, UsageError
from flows.repair_dataset import repair_dataset
from flows.restore_dataset import restore_without_prefect
from tasks.config.resolve import resolve_run
from tasks.finish_run import finish_run
from tasks.runs.commits import committed, files_of, read_commit
from tasks.runs.plan import Plan, find_plan
from tasks.storage.store import Store
from tasks.vacuum_run import vacuum_run
from tasks.verify_run import verify_run
from tasks.worker.job import Order, make_job
from tasks.worker.shard_worker import ShardWorker
from tests import support

FILES, ROWS, GROUP_ROWS = 3, 4, 2
PICTURES = [support.encoded(support.portrait(number, 16)) for number in range(FILES * ROWS)]
DRIVERS = st.integers(0, 2)
LIVES = st.integers(1, 5)  # a worker dies at this write; a shard takes two, and a third where another was faster


class Death(BaseException):
    """The process goes here."""


class Mortal(Store):
    """A store whose process dies at one of its writes, before or after it."""

    lives, after = 99, False

    def write(self, path: str, data: bytes, **how: Any) -> None:
        self._die_or(lambda: Store.write(self, path, data, **how))

    def create(self, path: str, data: bytes) -> bool:
        return bool(self._die_or(lambda: Store.create(self, path, data)))

    def delete(self, path: str) -> None:
        self._die_or(lambda: Store.delete(self, path))

    def _die_or(self, do: Any) -> Any:
        self.lives -= 1
        if self.lives == 0 and not self.after:
            raise Death
        done = do()
        if self.lives == 0:
            raise Death
        return done


class Protocol(RuleBasedStateMachine):
    """A run, three drivers of it that know nothing of each other, and the rows that its source has."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="bfr-protocol-"))
        self.run = support.make_run(self.folder, shard_rows=GROUP_ROWS, recogniser="none", lpips="none", fid="none")
        self.destination = self.folder / "dst"
        self.rows: dict[str, bytes] = {}
        self.versions = dict.fromkeys(range(FILES), 0)
        self.plans: dict[int, Plan] = {}
        self.damaged = False

    @initialize()
    def begin(self) -> None:
        self._write_file(0)
        self.resolved = resolve_run(self.run)
        self.worker = ShardWorker(make_job(self.resolved, "cpu", None))
        self.worker.load()

    def _write_file(self, number: int) -> None:
        """A file of rows that no other version of it has."""
        self.versions[number] += 1
        rows: list[dict[str, Any]] = []
        for i in range(ROWS):
            row_id = f"{number}-{i}-{self.versions[number]}"
            picture = PICTURES[(number * ROWS + i + self.versions[number]) % len(PICTURES)]
            rows.append({"id": row_id, "image": {"bytes": picture, "path": None}})
        self.rows = {name: data for name, data in self.rows.items() if not name.startswith(f"{number}-")}
        self.rows |= {row["id"]: row["image"]["bytes"] for row in rows}
        support.write_parquet(self.folder / "src" / f"{number}.parquet", rows, group_rows=GROUP_ROWS)

    @rule(number=st.integers(0, FILES - 1))
    def change_or_add_a_file(self, number: int) -> None:
        self._write_file(number)

    @rule(driver=DRIVERS)
    def plan(self, driver: int) -> None:
        self.plans[driver] = support.plan_run(self.run)

    @precondition(lambda self: self.plans)
    @rule(driver=DRIVERS, which=st.integers(0, 9), lives=LIVES, after=st.booleans(), dies=st.booleans())
    def attempt(self, driver: int, which: int, lives: int, after: bool, dies: bool) -> None:
        """Of a driver whose plan may be an old one by now."""
        plan = self.plans.get(driver)
        todo = list(plan.todo) if plan else []
        if not todo:
            return
        store = Mortal(str(self.destination))
        store.lives, store.after = (lives if dies else 99), after
        self.worker.__dict__["_store"] = store
        with suppress(Death, BfrError):  # the plan is another by now, or the source
            self.worker.run(Order(todo[which % len(todo)]))

    @precondition(lambda self: self.plans)
    @rule(lives=st.integers(1, 12), after=st.booleans(), dies=st.booleans())
    def close(self, lives: int, after: bool, dies: bool) -> None:
        store = Mortal(str(self.destination))
        store.lives, store.after = (lives if dies else 99), after
        with suppress(Death, BfrError):  # there are shards to do
            finish_run(self.resolved, store, datetime.now(UTC))

    @precondition(lambda self: self.plans)
    @rule()
    def vacuum(self) -> None:
        """Of what is older than any attempt may be."""
        for path in self.destination.rglob("*"):
            os.utime(path, (0, 0))
        with suppress(UsageError):  # a plan that cannot be read
            vacuum_run(str(self.destination))

    @rule()
    def resume(self) -> None:
        restore_without_prefect(self.run)

    @precondition(lambda self: list(self._named()))
    @rule(which=st.integers(0, 99), how=st.sampled_from(["removed", "truncated", "emptied"]), commit=st.booleans())
    def damage(self, which: int, how: str, commit: bool) -> None:
        """A committed file, or the commit itself."""
        commits = sorted((self.destination / "commits").glob("*.json"))
        paths = commits if commit else sorted(self._named())
        path = paths[which % len(paths)]
        if not path.exists():
            return
        self.damaged = True
        if how == "removed":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[: -9 if how == "truncated" else 0])

    @precondition(lambda self: find_plan(Store(str(self.destination))) is not None)
    @rule()
    def repair(self) -> None:
        repair_dataset(str(self.destination), restore=restore_without_prefect)
        assert verify_run(str(self.destination))["ok"]
        self.damaged = False

    def _named(self) -> Iterator[Path]:
        """The files that commits name; none of a commit that does not read."""
        store = Store(str(self.destination))
        for name in committed(store):
            with suppress(BfrError, ValueError):
                yield from (self.destination / path for path in files_of(read_commit(store, name)).values())

    @invariant()
    def commits_keep_their_promise(self) -> None:
        if not self.damaged:
            assert all(path.exists() for path in self._named())

    def teardown(self) -> None:
        """Once what was planned is done, and once more for what has come to the source since."""
        try:
            if self.rows:
                if self.damaged:
                    self.repair()
                for _ in range(2):
                    restore_without_prefect(self.run)
                assert verify_run(str(self.destination))["ok"]
                found = [row for path in self.destination.glob("data/*") for row in pq.read_table(path).to_pylist()]
                assert sorted(row["id"] for row in found) == sorted(self.rows)
                for row in found:
                    expected = support.decoded(self.rows[row["id"]])
                    assert support.decoded(row["restored"]["bytes"]).mean() == pytest.approx(expected.mean(), abs=2)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)


TestProtocol = Protocol.TestCase
TestProtocol.settings = settings(
    max_examples=int(os.environ.get("BFR_PROTOCOL_EXAMPLES", "3")), stateful_step_count=20, deadline=None,
    suppress_health_check=list(HealthCheck), derandomize="BFR_PROTOCOL_EXAMPLES" not in os.environ,
)  # fmt: skip
