"""Shards: row-group ranges of source files, with ids that depend on nothing but the file.

Files that are added to a source leave the ids of all others as they are; a file that changes gets new shards.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from typing import BinaryIO

import pyarrow as pa

from bfr_models.errors import BfrError
from tasks.runs.layout import commit_name
from tasks.storage.filesystem import split_file
from tasks.storage.redaction import with_secrets, without_secrets
from tasks.storage.store import FileVersion, Store, shared_store

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("name", pa.string()),
        ("version", pa.string()),
        ("row_group_start", pa.int32()),
        ("row_group_stop", pa.int32()),
        ("first_row", pa.int64()),
        ("rows", pa.int64()),
        ("generation", pa.int32()),
    ]
)

PICKED = pa.field("picked", pa.list_(pa.int32()))  # only in the plans of runs that are limited to some rows
OWN = pa.field("own", pa.bool_())  # only in plans as they are read, of runs that have their source in themselves


@dataclass(frozen=True)
class Shard:
    """The unit of work: row groups [row_group_start, row_group_stop) of one version of one file."""

    id: str
    source: str  # URL of the file
    name: str  # the file's path inside the dataset, for row ids and messages
    version: str
    row_group_start: int
    row_group_stop: int
    first_row: int  # in the file
    rows: int
    generation: int = 0  # how many times it has been planned again for its rejected rows
    plan: int = 0  # number of the plan that it was read from; not stored there
    picked: tuple[int, ...] | None = (
        None  # the rows it covers, ascending, from `first_row`; None: all of its row groups
    )
    own: bool = False  # the file is the run's own: it never changes, but copying the run gives it another version

    def __post_init__(self) -> None:
        if self.picked is not None:  # as JSON and Parquet give it
            object.__setattr__(self, "picked", tuple(self.picked))

    @property
    def numbers(self) -> Sequence[int]:
        """The number in the file of each row that it covers."""
        if self.picked is None:
            return range(self.first_row, self.first_row + self.rows)
        return [self.first_row + row for row in self.picked]

    @property
    def commit(self) -> str:
        """The name of its commit."""
        return commit_name(self.id, self.generation)

    @property
    def dataset(self) -> str:
        """URL of the folder that the file's name is relative to."""
        return self.source.removesuffix(self.name).rstrip("/") or "/"

    @property
    def places(self) -> Iterator[str]:
        """Where each row is: its id, unless the dataset has a column `id`."""
        return (f"{self.name}#{number}" for number in self.numbers)

    def with_secrets(self, given: str) -> Shard:
        """The shard with the secrets of the source URL that was given: a stored plan has none."""
        return replace(self, source=with_secrets(self.source, given))

    def open(self) -> BinaryIO:
        """The source file, for range reads."""
        store, name = _locate(self.source)
        return store.open_input(name)


def shards_of_file(
    source: str,
    name: str,
    version: str,
    group_rows: Sequence[int],
    shard_rows: int,
    picked: Sequence[int] | None = None,
) -> Iterator[Shard]:
    """Cuts a file into ranges of whole row groups, each of at most `shard_rows` rows or a single group.

    With `picked` (numbers of rows, ascending) the shards cover these rows only; ranges without any have no shard.
    """
    for shard in _whole_shards(source, name, version, group_rows, shard_rows):
        if picked is None:
            yield shard
            continue
        inside = picked[bisect_left(picked, shard.first_row) : bisect_left(picked, shard.first_row + shard.rows)]
        if inside:
            rows = tuple(row - shard.first_row for row in inside)
            shard_id = _digest(f"{shard.id}\0{','.join(map(str, rows))}")
            yield replace(shard, id=shard_id, rows=len(rows), picked=rows)


def _whole_shards(source: str, name: str, version: str, group_rows: Sequence[int], shard_rows: int) -> Iterator[Shard]:
    first_rows = [0, *accumulate(group_rows)]
    start = 0
    for stop in range(1, len(group_rows) + 1):
        rows = first_rows[stop] - first_rows[start]
        is_last = stop == len(group_rows)
        if not is_last and rows + group_rows[stop] <= shard_rows:
            continue
        if rows:
            shard_id = _stable_id(source, version, start, stop)
            yield Shard(shard_id, source, name, version, start, stop, first_rows[start], rows)
        start = stop


def _stable_id(source: str, version: str, start: int, stop: int) -> str:
    return _digest(f"{without_secrets(source)}\0{version}\0{start}\0{stop}")


def _digest(key: str) -> str:
    return hashlib.blake2b(key.encode(), digest_size=10).hexdigest()


def to_table(shards: Sequence[Shard]) -> pa.Table:
    """A plan as it is stored, without the secrets in its URLs."""
    rows = [asdict(shard) | {"source": without_secrets(shard.source)} for shard in shards]
    has_picks = any(shard.picked is not None for shard in shards)
    return pa.Table.from_pylist(rows, schema=SCHEMA.append(PICKED) if has_picks else SCHEMA)


def from_table(table: pa.Table) -> Iterator[Shard]:
    """The shards of a stored plan; one batch at a time is in memory."""
    names = [name for name in (*SCHEMA.names, PICKED.name, OWN.name) if name in table.column_names]
    for batch in table.select(names).to_batches(max_chunksize=4096):
        for row in batch.to_pylist():
            yield Shard(**row)


def as_own(table: pa.Table, folder: str) -> pa.Table:
    """A stored plan of a run that has its source in itself, in `folder` now: the run may have been moved or copied."""
    sources = pa.array([f"{folder}/{name}" for name in table["name"].to_pylist()], pa.string())
    table = table.set_column(table.schema.get_field_index("source"), SCHEMA.field("source"), sources)
    return table.append_column(OWN, pa.array([True] * table.num_rows))


def recognised(live: Iterable[Shard], known: Iterable[Shard]) -> list[Shard]:
    """The shards, the run's own among them as they are `known`: with the id and the version from before a copy."""
    before = {_contents(shard): shard for shard in known if shard.own}
    return [_as_known(shard, before.get(_contents(shard))) if shard.own else shard for shard in live]


def _contents(shard: Shard) -> tuple[object, ...]:
    return shard.name, shard.row_group_start, shard.row_group_stop, shard.first_row, shard.rows, shard.picked


def _as_known(shard: Shard, known: Shard | None) -> Shard:
    if known is None or not _may_be_the_same(known.version, shard.version, _size(shard.version)):
        return shard
    return replace(shard, id=known.id, version=known.version)


def current_version(source: str) -> str | None:
    """The present version of a source file; None if it is gone."""
    found = source_file(source)
    return None if found is None else found.version


def is_unchanged(shard: Shard) -> bool:
    """Whether the shard's file is there as it was when it was planned."""
    found = source_file(shard.source)
    return found is not None and is_version_of(shard, found)


def is_version_of(shard: Shard, found: FileVersion) -> bool:
    """Whether a file is that of the shard as it was planned; the run's own one, but for what copying changes."""
    return found.version == shard.version or (shard.own and _may_be_the_same(shard.version, found.version, found.size))


def source_file(source: str) -> FileVersion | None:
    """A source file as it is now; None if it is gone."""
    store, name = _locate(source)
    try:
        return store.info(name)
    except FileNotFoundError:
        return None


def _may_be_the_same(planned: str, found: str, size: int | None) -> bool:
    """Whether two versions may be of the same bytes: a copy has another time, and stores make ETags of their own."""
    return planned == found or None in (before := (_size(planned), size)) or before[0] == before[1]


def _size(version: str) -> int | None:
    """The size in a version that is made of size and time."""
    size, dash, _ = version.partition("-")
    return int(size) if dash and size.isdecimal() else None


def _locate(source: str) -> tuple[Store, str]:
    folder, name = split_file(source)
    return shared_store(folder), name


def require_unchanged(shard: Shard) -> None:
    """BfrError if the shard's file has changed since it was planned."""
    if not is_unchanged(shard):
        raise BfrError(
            f"{shard.source}: expected version {shard.version}, found {current_version(shard.source) or 'no file'}: it "
            "changed during the run; run the same command again, which plans the changed files again"
        )
