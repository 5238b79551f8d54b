"""Pages of faces, in any order and by any filter: DuckDB over the table of `index`, with who decided what joined in."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from bfr_models.errors import UsageError, unknown
from tasks.export.rows import ExportRun
from tasks.review.index import SCHEMA, facts_of, index_name, keep_index, make_index, whole
from tasks.runs.layout import DATA
from tasks.runs.reviews import VERDICTS, Decision, FaceKey
from tasks.storage.store import Store

SCORES = ("identity", "gain", "spread", "harm", "sharpness", "side")
ORDERS: Mapping[str, str] = {
    "doubt": "-doubt",
    "identity": "coalesce(identity, 2)",
    "gain": "coalesce(gain, 9)",
    "harm": "-coalesce(harm, -1)",
    "sharpness": "coalesce(sharpness, 1e9)",
    "side": "side",
    "run": "face",
}
"""What faces may be sorted by, as a number that is lowest for the first."""
OPEN, DECIDED = "open", "decided"
BEFORE, AFTER = "before", "after"  # the two images of a face
MAX_PAGE = 200
_FOLDERS = 500  # that are listed

Row = dict[str, Any]


@dataclass(frozen=True)
class Filter:
    """Which faces a page shows; empty lists and None: all."""

    outcomes: tuple[str, ...] = ()
    state: str = ""  # open, decided, or a verdict
    score: str = ""
    low: float | None = None
    high: float | None = None
    decade: int | None = None
    folder: str = ""  # with all below it
    order: str = "doubt"

    def __post_init__(self) -> None:
        if self.state not in ("", OPEN, DECIDED, *VERDICTS):
            raise unknown("state", self.state, (OPEN, DECIDED, *VERDICTS))
        if self.score not in ("", *SCORES):
            raise unknown("score", self.score, SCORES)
        if self.order not in ORDERS:
            raise unknown("order", self.order, list(ORDERS))


@dataclass
class Faces:
    """The faces of a run. While their table is being made, those that have been read so far."""

    run: ExportRun
    year_column: str | None = None
    files_read: int = 0
    failed: str = ""
    _database: duckdb.DuckDBPyConnection = field(default_factory=lambda: duckdb.connect(config={"threads": 2}))
    _facts: dict[str, Any] = field(default_factory=dict)
    _local: tempfile.TemporaryDirectory[str] | None = None

    def __post_init__(self) -> None:
        self._files: Mapping[str, int] = {shard.id: number for number, (shard, _) in enumerate(self.run.shards)}
        with self._cursor() as cursor:
            cursor.execute(
                "CREATE TABLE verdicts (file INTEGER, source_row BIGINT, place SMALLINT, verdict VARCHAR, "
                "by_whom VARCHAR, decided VARCHAR, method VARCHAR, fidelity DOUBLE)"
            )

    def open(self) -> None:
        """Takes the table that the run has, or makes it, in the background. `is_whole` says when it is there."""
        store, name = self.run.store, index_name(self.run.store, self.year_column)
        if store.exists(name) and self._take_file(store, name):
            return
        with self._cursor() as cursor:
            cursor.register("empty", SCHEMA.empty_table())
            cursor.execute("CREATE TABLE faces AS SELECT * FROM empty")
        threading.Thread(target=self._make, args=(name,), daemon=True).start()

    @property
    def is_whole(self) -> bool:
        return self.files_read >= len(self.run.shards)

    def shard_id(self, row: Row) -> str:
        """The shard of a face."""
        return self.run.shards[row["file"]][0].id

    def key(self, row: Row) -> FaceKey:
        """What decisions about a face go by."""
        return FaceKey(self.shard_id(row), row["source_row"], row["place"])

    def data(self, row: Row) -> str:
        """The data file that a face is in."""
        return str(self.run.shards[row["file"]][1][DATA])

    def note(self, decisions: Mapping[FaceKey, Decision | None]) -> None:
        """What is decided about faces now; None: nothing any more. Faces of other plans are left out."""
        known = {key: one for key, one in decisions.items() if key.shard in self._files}
        if not known:
            return
        places = {key: (self._files[key.shard], key.row, key.face) for key in known}
        rows = [
            {
                **dict(zip(("file", "source_row", "place"), places[key], strict=True)),
                "verdict": one.verdict,
                "by_whom": one.by,
                "decided": one.when,
                "method": one.redo.method if one.redo else None,
                "fidelity": one.redo.fidelity if one.redo else None,
            }
            for key, one in known.items()
            if one is not None
        ]
        with self._cursor() as cursor:
            cursor.register("touched", _table(places.values()))
            cursor.register("added", pa.Table.from_pylist(rows, schema=_VERDICTS))
            cursor.execute("BEGIN")
            cursor.execute("DELETE FROM verdicts v USING touched t WHERE (v.file, v.source_row, v.place) = "
                           "(t.file, t.source_row, t.place)")  # fmt: skip
            cursor.execute("INSERT INTO verdicts SELECT * FROM added")
            cursor.execute("COMMIT")

    def page(self, asked: Filter, after: tuple[float, int] | None, limit: int) -> list[Row]:
        """Faces in the order that was asked for, from the one behind `after`, which is the `key` and `face` of one."""
        where, given = _where(asked)
        if after is not None:
            where, given = f"{where} AND (key, face) > (?, ?)", [*given, *after]
        what = f"face, CAST({ORDERS[asked.order]} AS DOUBLE) AS key"
        keys = self._select(what, where, given, f"ORDER BY key, face LIMIT {min(limit, MAX_PAGE)}")
        rows = {row["face"]: row for row in self.rows(row["face"] for row in keys)}  # all columns, of these alone
        return [rows[found["face"]] | found for found in keys]

    def count(self, asked: Filter) -> dict[str, int]:
        """How many faces a filter leaves, and how many of these are decided. The state is left aside."""
        where, given = _where(replace(asked, state=""))
        (row,) = self._select(f"count(*) AS faces, count(*) FILTER (verdict IN {_CLOSED}) AS decided", where, given)
        return row

    def rows(self, faces: Iterable[int]) -> list[Row]:
        """Faces by their numbers, in the order of the run. UsageError if one does not exist."""
        wanted = sorted(set(faces))
        found = self._select("*", "face IN (SELECT unnest(?::BIGINT[]))", [wanted], "ORDER BY face")
        if len(found) != len(wanted):
            raise UsageError(f"expected the numbers of faces of this run, found {wanted[:10]}")
        return found

    def beside(self, row: Row) -> list[Row]:
        """All faces of the same image."""
        return self._select("*", "file = ? AND row = ?", [row["file"], row["row"]], "ORDER BY place")

    def of_keys(self, keys: Iterable[FaceKey]) -> list[Row]:
        """The faces that decisions are about, in the order of the run; those of other plans are left out."""
        places = [(self._files[key.shard], key.row, key.face) for key in keys if key.shard in self._files]
        with self._cursor() as cursor:
            cursor.register("wanted", _table(places))
            return self._select("*", "(file, source_row, place) IN (SELECT * FROM wanted)", (), "ORDER BY face", cursor)

    def facts(self) -> dict[str, Any]:
        """What there is to filter by, each with the number of faces."""
        return self._facts or self._found_facts()

    def _found_facts(self) -> dict[str, Any]:
        ranges = ", ".join(f"min({score}) AS {score}_low, max({score}) AS {score}_high" for score in SCORES)
        (ends,) = self._select(f"count(*) AS faces, {ranges}")
        return {
            "faces": ends["faces"],
            "outcomes": self._counted("outcome", "count(*) DESC"),
            "decades": self._counted("year // 10 * 10", "1"),
            "folders": self._counted("nullif(folder, '')", f"1 LIMIT {_FOLDERS}"),
            "scores": {
                score: [ends[f"{score}_low"], ends[f"{score}_high"]]
                for score in SCORES
                if ends[f"{score}_low"] is not None
            },
        }

    def _counted(self, what: str, order: str) -> list[list[Any]]:
        tail = f"GROUP BY 1 ORDER BY {order}"
        found = self._select(f"{what} AS what, count(*) AS faces", f"{what} IS NOT NULL", (), tail)
        return [[row["what"], row["faces"]] for row in found]

    def _select(
        self,
        what: str,
        where: str = "true",
        given: Iterable[Any] = (),
        tail: str = "",
        cursor: duckdb.DuckDBPyConnection | None = None,
    ) -> list[Row]:
        query = f"SELECT {what} FROM {_FACES} WHERE {where} {tail}"  # noqa: S608  all of it is written here, but `given`
        found = (cursor or self._cursor()).execute(query, list(given))
        names = [column[0] for column in found.description or ()]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        return self._database.cursor()

    def _take_file(self, store: Store, name: str) -> bool:
        """Takes the table that is in the run; False if it does not read."""
        path = store.url(name)
        if not Path(path).exists():  # in an object store
            self._local = tempfile.TemporaryDirectory(prefix="bfr-review-")
            path = f"{self._local.name}/faces.parquet"
            Path(path).write_bytes(store.read(name))
        quoted = path.replace("'", "''")
        try:
            self._facts = facts_of(path)
            with self._cursor() as cursor:
                cursor.execute(f"CREATE VIEW faces AS SELECT * FROM read_parquet('{quoted}')")  # noqa: S608
        except (duckdb.Error, pa.ArrowException, KeyError):
            return False
        self.files_read = len(self.run.shards)
        return True

    def _make(self, name: str) -> None:
        try:
            parts = []
            for read, part in make_index(self.run, self.year_column):
                parts.append(part)
                with self._cursor() as cursor:
                    cursor.register("part", part)
                    cursor.execute("INSERT INTO faces SELECT * FROM part")
                self.files_read = min(read, len(self.run.shards) - 1)  # the last counts once it is kept
            self._facts = self._found_facts()
            keep_index(self.run.store, name, whole(parts), self._facts)
            self.files_read = len(self.run.shards)
        except Exception as error:  # whatever it is, the page has to say it
            self.failed = f"{type(error).__name__}: {error}"


_FACES = """(
    SELECT f.*, verdict, by_whom, decided, method, fidelity
    FROM faces f LEFT JOIN verdicts USING (file, source_row, place)
)"""
_CLOSED = "('approved', 'original', 'redo')"
_PLACE = pa.schema([SCHEMA.field(name) for name in ("file", "source_row", "place")])
_VERDICTS = pa.schema(
    [
        *_PLACE,
        ("verdict", pa.string()),
        ("by_whom", pa.string()),
        ("decided", pa.string()),
        ("method", pa.string()),
        ("fidelity", pa.float64()),
    ]
)


def _table(places: Iterable[tuple[int, int, int]]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(_PLACE.names, one, strict=True)) for one in places], schema=_PLACE)


def _where(asked: Filter) -> tuple[str, list[Any]]:
    """A condition, and what stands for its question marks."""
    found: list[tuple[str, list[Any]]] = [("true", [])]
    if asked.outcomes:
        found.append(("outcome IN (SELECT unnest(?::VARCHAR[]))", [list(asked.outcomes)]))
    if asked.state == OPEN:
        found.append(("verdict IS NULL", []))
    elif asked.state == DECIDED:
        found.append((f"verdict IN {_CLOSED}", []))
    elif asked.state:
        found.append(("verdict = ?", [asked.state]))
    for value, sign in ((asked.low, ">="), (asked.high, "<=")):
        if asked.score and value is not None:
            found.append((f"{asked.score} {sign} ?", [value]))
    if asked.decade is not None:
        found.append(("year // 10 * 10 = ?", [asked.decade]))
    if asked.folder:
        found.append(("(folder = ? OR starts_with(folder, ?))", [asked.folder, f"{asked.folder}/"]))
    return " AND ".join(condition for condition, _ in found), [value for _, some in found for value in some]
