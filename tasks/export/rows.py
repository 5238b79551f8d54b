"""The rows of a finished run, in the order of its plan, each with its image as it was in the source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bfr_models.errors import BfrError, RowError, UsageError
from tasks.datasets.fetch_images import Fetcher
from tasks.datasets.image_column import addresses, image_bytes
from tasks.datasets.row_groups import plain_columns, read_row_groups, value_at
from tasks.runs.finished_run import current_run
from tasks.runs.layout import DATA, REJECTED, SOURCE
from tasks.runs.manifest import Entry, data_by_shard, read_manifest
from tasks.runs.outcomes import CHANGED, KEPT_ORIGINAL, outcome_word
from tasks.runs.packed import read_packed
from tasks.runs.plan import require_finished
from tasks.runs.record import RunRecord
from tasks.runs.reviews import APPROVED, ORIGINAL, FaceKey, Reviews, read_reviews
from tasks.runs.sealed import DamagedError, run_parquet
from tasks.runs.shards import Shard, from_table, is_unchanged
from tasks.runs.spec import read_spec, settings_digest
from tasks.runs.superseded import Rows, of_shard, superseded_rows
from tasks.storage.redaction import redact
from tasks.storage.store import Store

_RESTORED, _IMAGE = "restored", "image"  # the columns with images in `data/` and `rejected/`


@dataclass(frozen=True, eq=False)
class ExportRow:
    """One row of the source, and what the run made of it."""

    id: str
    path: str | None  # of the image, as the source has it
    original: bytes | None
    lost: str  # why there is no original
    restored: bytes | None  # None for a rejected row
    values: dict[str, Any]  # of its columns without images; of a rejected row, why
    refused: tuple[dict[str, Any], ...] = ()  # faces that the run has changed, and that a review has not let pass


@dataclass(frozen=True, eq=False)
class _Cell:
    """An image of the source: its bytes, its path, and why there are no bytes."""

    data: bytes | None
    path: str | None
    lost: str = ""


@dataclass(frozen=True)
class ExportRun:
    """A finished run, to be read shard by shard."""

    store: Store
    record: RunRecord
    settings: str  # their digest: runs that share it make the same of the same images
    shards: list[tuple[Shard, Entry]]
    reviews: Reviews
    only_approved: bool = False  # a face that nobody has approved is as good as refused
    superseded: Rows = field(default_factory=dict)  # rows whose file has been packed anew since

    def asked(self, name: str, default: Any = None) -> Any:
        """A setting of the run."""
        return self.record["arguments"].get(name, default)

    def superseded_in(self, number: int) -> list[int]:
        """The rows of a shard that a newer version of their file has superseded."""
        shard, _ = self.shards[number]
        rows = of_shard(shard, self.superseded)
        return [row for row in shard.numbers if row in rows] if rows else []

    def rows(self, number: int) -> Iterator[ExportRow]:
        """The rows of a shard that count, in the order of the source. One row group of each file is in memory at a
        time."""
        old = set(self.superseded_in(number))
        yield from (found for row, found in self._all_rows(number) if row not in old)

    def _all_rows(self, number: int) -> Iterator[tuple[int, ExportRow]]:
        shard, entry = self.shards[number]
        column = self.asked("column", _IMAGE)
        kept = f"source_{column}" if column.casefold() == _RESTORED else column
        restored = _records(self.store, entry[DATA], [_RESTORED, kept])
        rejected = _records(self.store, entry[REJECTED], [_IMAGE])
        reject = next(rejected, None)
        for row, cell in zip(shard.numbers, _originals(shard, column), strict=True):
            if reject is not None and reject["source_row"] == row:
                yield row, _rejected(reject, cell)
                reject = next(rejected, None)
                continue
            values = next(restored, None)
            if values is None:
                raise BfrError(
                    f"expected {shard.rows} rows in shard {shard.commit} of {self.store}, found fewer; `bfr verify` "
                    "says what is damaged"
                )
            images = {name: values.pop(name, None) for name in (_RESTORED, kept)}
            own = cell if cell.data is not None or not images[kept] else _cell(images[kept], cell.path)
            refused = tuple(self._refused(shard, row, values["faces"] or []))
            restored_bytes = image_bytes(images[_RESTORED])
            yield row, ExportRow(values["id"], own.path, own.data, own.lost, restored_bytes, values, refused)

    @property
    def newest_first(self) -> list[int]:
        """The numbers of the shards. What a run of files has packed last is first: of a file that has changed, the
        newer image then gets its name."""
        folder = self.store.url(SOURCE)
        try:
            parts = read_packed(self.store.sub(SOURCE)).parts
        except DamagedError:
            parts = ()
        packings = list(dict.fromkeys(part.partition("/")[0] for part in parts))
        ages = {f"{folder}/{packing}": age for age, packing in enumerate(reversed(packings))}
        places = (shard.source.rpartition("/")[0] for shard, _ in self.shards)
        return [number for _, number in sorted((ages.get(place, 0), number) for number, place in enumerate(places))]

    def last_id(self, number: int) -> str:
        """The id of the last row of a shard."""
        shard, entry = self.shards[number]
        last = shard.numbers[-1]
        if entry[REJECTED]:
            table = self._columns(entry[REJECTED], ["id", "source_row"])
            if table["source_row"][-1].as_py() == last:
                return str(table["id"][-1])
        return str(self._columns(entry[DATA], ["id"])["id"][-1])

    def _refused(self, shard: Shard, row: int, faces: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Notes in a row's faces what was decided about them; those that are to have the input's pixels again."""
        for place, face in enumerate(faces):
            decision = self.reviews.current.get(FaceKey(shard.id, row, place))
            if decision is not None:
                face["review"] = {"verdict": decision.verdict, "by": decision.by, "when": decision.when}
            verdict = decision.verdict if decision else None
            if outcome_word(face["outcome"]) not in CHANGED or verdict == APPROVED:
                continue
            if self.only_approved or verdict == ORIGINAL:
                yield dict(face)
                why = "by review" if verdict == ORIGINAL else "not approved"
                face["outcome"] = f"{KEPT_ORIGINAL}: {why} ({face['outcome']})"

    def _columns(self, path: str, names: list[str]) -> pa.Table:
        with run_parquet(self.store, path) as parquet:
            return parquet.read(columns=names)


def open_export(url: str, *, only_approved: bool = False) -> ExportRun:
    """A finished run, or the current one of generations, with what was decided about its faces. UsageError for anything
    else, and for a run without decisions if only what was approved is wanted."""
    store = current_run(url)
    plan, record = require_finished(store)
    entries = {entry["shard"]: entry for entry in read_manifest(store)}
    shards = [(shard, entries[shard.id]) for shard in from_table(plan.shards)]
    reviews = read_reviews(store, data_by_shard(entries.values()))
    if only_approved and not reviews.current:
        found = f"{len(reviews.outdated)} about what they were before" if reviews.outdated else "none"
        raise UsageError(
            f"expected decisions about the faces of {redact(store.url())}, found {found}; `bfr review "
            f"{redact(store.url())}` shows them"
        )
    settings = settings_digest(read_spec(store))
    return ExportRun(store, record, settings, shards, reviews, only_approved, superseded_rows(store))


def _records(store: Store, path: str | None, images: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of a file of the run: its columns without images, and those of `images` that it has."""
    if path is None:
        return
    with run_parquet(store, path) as parquet:
        schema = parquet.schema_arrow
        names = [name for name in schema.names if name in images or name in plain_columns(schema)]
        for group in range(parquet.num_row_groups):
            table = parquet.read_row_group(group, columns=names)
            for row in range(table.num_rows):
                yield {name: value_at(table[name], row) for name in names}


def _rejected(values: dict[str, Any], cell: _Cell) -> ExportRow:
    image = values.pop(_IMAGE)
    data = image_bytes(image, lambda _: None)
    if data is None and cell.data == b"":  # of an empty file older versions kept nothing
        data = cell.data
    lost = "" if data is not None else f"it had no bytes in the source ({values['error']})"
    return ExportRow(values["id"], cell.path or _path(image), data, lost, None, values)


def _originals(shard: Shard, column: str) -> Iterator[_Cell]:
    """The image cell of each row that a shard covers."""
    if not is_unchanged(shard):
        yield from repeat(_Cell(None, None, f"{redact(shard.source)} has changed or is gone"), shard.rows)
        return
    picked, first = None if shard.picked is None else set(shard.numbers), shard.first_row
    with shard.open() as opened:
        parquet = pq.ParquetFile(opened)
        for group in range(shard.row_group_start, shard.row_group_stop):
            table, unread = read_row_groups(parquet, range(group, group + 1), [column])
            fetch = Fetcher(shard.dataset, addresses(table[column]))
            rows = [row for row in range(table.num_rows) if picked is None or first + row in picked]
            first += table.num_rows
            for row in rows:
                value = value_at(table[column], row)
                try:
                    yield _Cell(image_bytes(value, fetch), _path(value), unread.get(row, ""))
                except RowError as error:
                    yield _Cell(None, _path(value), str(error))


def _cell(kept: Any, path: str | None) -> _Cell:
    """The input image that the run has kept."""
    return _Cell(image_bytes(kept, lambda _: None), path or _path(kept))


def _path(cell: Any) -> str | None:
    """The name that an image has in its cell: that of its file, or its address."""
    if isinstance(cell, dict):
        cell = cell.get("path")
    return cell if isinstance(cell, str) and cell else None
