"""Packs images into a Parquet dataset: one row per image file, byte for byte, broken files included.

Nothing is lost on the way in: `restore` rejects what does not decode, with the reason. A TIFF or PDF with several pages
becomes one row per page; that of the first one has the whole file, of which every reader takes the first page.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pyarrow as pa

from bfr_models.errors import BfrError, UsageError
from tasks.datasets.archives import Entry, is_archive, read_entries
from tasks.datasets.folder_columns import with_folder_columns
from tasks.datasets.image_column import IMAGE, find_image_column, image_bytes, with_image_features, with_image_fields
from tasks.datasets.image_files import ImageFiles, digest_of, image_files
from tasks.datasets.overwriting import made_by, require_apart, require_free, require_outside
from tasks.datasets.picture_rows import BATCH_ROWS, PackReport, rows_of, tables_of
from tasks.datasets.row_groups import batches, opened_parquet, values
from tasks.datasets.row_ids import require_ids, row_ids
from tasks.datasets.writer import DatasetWriter
from tasks.runs.layout import SOURCE, SPEC
from tasks.runs.packed import (
    Note,
    Packed,
    Sums,
    note_packed,
    read_left_out,
    read_packed,
    read_sums,
    write_left_out,
    write_sums,
)
from tasks.runs.source import open_source
from tasks.storage.redaction import redact
from tasks.storage.store import PARALLEL_READS, Store
from tasks.storage.waits import say

ROWS_PER_FILE, ROW_GROUP_ROWS = 5000, 32
_AT_ONCE = 1024  # files whose bytes are compared: what is to be done later takes no memory yet


def pack_pictures(
    source: str,
    destination: str,
    rows_per_file: int = ROWS_PER_FILE,
    row_group_rows: int = ROW_GROUP_ROWS,
    column: str = "image",
    *,
    follow_links: bool = False,
    overwrite: bool = False,
) -> PackReport:
    """Packs a folder, .zip, .tar (or WebDataset) or Parquet at `source` into `part-*.parquet` at `destination`.

    UsageError if there is nothing to pack, or if the destination has other files, or another dataset that is not to be
    overwritten.
    """
    require_apart(source, destination)
    store, report = Store(destination), PackReport()
    mark = made_by("pack", source, {"column": column})
    require_free(store, mark, overwrite=overwrite)
    with DatasetWriter(store, rows_per_file, row_group_rows, mark=mark) as writer:
        entries = read_entries(source, follow_links=follow_links)
        tables = _from_parquet(source, column) if entries is None else tables_of(rows_of(entries, report))
        for table in tables:
            writer.write(table)
    report.rows, report.files, report.bytes = writer.rows, len(writer.files), writer.bytes
    if not report.rows:
        others = "".join(f"; {other['name']}: {other['why']}" for other in report.skipped[:3])
        raise UsageError(
            f"expected images at {redact(source)}, found none ({len(report.skipped)} other files{others}); check the "
            "path"
        )
    return report


@dataclass(frozen=True)
class FilesOfRun:
    """Images that a run was given as files: it packs them into itself, once, and goes on with that dataset."""

    source: str  # as it was given
    url: str  # of the dataset
    found: ImageFiles
    todo: dict[str, str]  # files that are new or have changed, with their versions
    same: dict[str, str]  # files with other versions, and the bytes that were packed
    packed: Packed
    others: dict[str, str]  # files that are left out and not recorded yet, and why

    @property
    def changed(self) -> int:
        """How many of those to do were packed before, in another version: those rows stay."""
        return len(self.todo.keys() & self.packed.versions.keys())

    @property
    def gone(self) -> int:
        """How many of those packed before are at the source no more."""
        return len(self.packed.versions.keys() - self.found.files.keys())

    @property
    def moved_from(self) -> str:
        """Where the files were when they were packed, if that was elsewhere."""
        origin = self.packed.origin
        return origin if origin != redact(self.source) else ""

    def pack(self) -> PackReport:
        """Packs what is to do into further files of the dataset, and notes what else is new."""
        folder, report, number = Store(self.url), PackReport(), self.packed.records
        if self.same:
            self._note(folder, number, self.same, Note(redact(self.source)))
            number += 1
        if self.todo or self.others or (self.moved_from and not self.same):
            attempt = uuid.uuid4().hex[:12]
            note = self._packed(folder, attempt, report) if self.todo else Note(redact(self.source))
            self._note(folder, number, self.todo, self._with_left_out(folder, attempt, note, report))
        report.left_out = self.packed.left_out_files + len(report.skipped)
        return report

    def _packed(self, folder: Store, attempt: str, report: PackReport) -> Note:
        sums = Sums()
        with DatasetWriter(folder.sub(attempt), ROWS_PER_FILE, ROW_GROUP_ROWS) as writer:
            entries = read_entries(self.source, only=self.todo.keys())
            for table in tables_of(rows_of(_summed(entries or (), sums), report)):
                writer.write(table)
        report.rows, report.files, report.bytes = writer.rows, len(writer.files), writer.bytes
        for name in filter(is_archive, self.todo):
            if digest := digest_of(self.found.store, name):
                sums[name] = (self.found.files[name].size, digest)
        parts = [f"{attempt}/{name}" for name in writer.files]
        return Note(redact(self.source), parts, write_sums(folder, attempt, sums))

    def _with_left_out(self, folder: Store, attempt: str, note: Note, report: PackReport) -> Note:
        """The note with the list of what has no row, or a row without bytes, and is in no earlier list."""
        known = read_left_out(folder, self.packed) if report.skipped else set[str]()
        skipped = {one["name"]: one["why"] for one in report.skipped if one["name"] not in known} | self.others
        report.skipped = [{"name": name, "why": why} for name, why in skipped.items()]
        lost = {one["name"]: one["why"] for one in report.lost}
        if not skipped and not lost:
            return note
        return replace(note, left_out=write_left_out(folder, attempt, skipped, lost), left_out_files=len(skipped))

    def _note(self, folder: Store, number: int, versions: Mapping[str, str], note: Note) -> None:
        if note_packed(folder, number, versions, note):
            return
        for path in filter(None, (*note.parts, note.sums, note.left_out)):
            folder.delete(path)
        raise BfrError(
            f"expected to be the only one that packs {redact(self.source)} into {redact(self.url)}, found another "
            "that was faster; run the same command again"
        )


def files_of_run(source: str, destination: str) -> FilesOfRun | None:
    """The images at a run's source, if these are files; None for a dataset. UsageError, before anything is written, if
    the run at the destination is of other files, or if there is none any more."""
    Store(destination).require_writable()
    url = f"{destination.rstrip('/')}/{SOURCE}"
    packed = read_packed(Store(url))
    if not packed.records and Store(destination).exists(SPEC):
        return None  # a run of a dataset: nothing is listed to know that
    if packed.records and redact(source).rstrip("/") == redact(url):
        return None  # by the dataset's own address, as `run.json` has it
    found = image_files(source, packed.versions.keys())
    if not packed.records and found is None:
        return None
    require_outside(source, destination)
    elsewhere = UsageError(
        f"expected {packed.origin}, whose images are packed in {redact(url)}, found {redact(source)}; use another "
        "destination"
    )
    moved = packed.records > 0 and packed.origin != redact(source)
    if moved and (found is None or not packed.versions.keys() & found.files.keys()):
        raise elsewhere
    if found is None or (packed.records and not found.files):  # new ones alone are an inbox, emptied after each run
        raise UsageError(
            f"expected the {len(packed.versions)} files packed before in {redact(source)}, or new ones, found none; is "
            f"it mounted? To go on with what is packed, name {redact(url)} as the source"
        )
    todo, same = _compared(found, packed, Store(url))
    again = [name for name in todo if name in packed.versions]
    if moved and again:
        raise elsewhere
    if archive := next(filter(is_archive, again), None):
        raise UsageError(
            f"expected {archive} as it was when it was packed into {redact(url)}, found it changed: all its images "
            "would come twice; use another destination"
        )
    known = read_left_out(Store(url), packed) if found.others and packed.records else set[str]()
    others = {name: why for name, why in found.others.items() if name not in known}
    return FilesOfRun(source, url, found, todo, same, packed, others)


def _compared(found: ImageFiles, packed: Packed, folder: Store) -> tuple[dict[str, str], dict[str, str]]:
    """The files that are to be packed, and those of another version whose bytes are packed, with their versions. Only
    files are read whose version has changed and whose size has not."""
    todo = {name: one.version for name, one in found.files.items() if packed.versions.get(name) != one.version}
    sums = read_sums(folder, packed) if todo.keys() & packed.versions.keys() else Sums()
    doubtful = [name for name in todo if name in sums and sums[name][0] == found.files[name].size]
    if doubtful:
        say(f"{len(doubtful)} files have another date than when they were packed: comparing their bytes")
    same: dict[str, str] = {}
    with ThreadPoolExecutor(PARALLEL_READS) as readers:
        for start in range(0, len(doubtful), _AT_ONCE):
            names = doubtful[start : start + _AT_ONCE]
            digests = readers.map(lambda name: digest_of(found.store, name), names)
            same |= {name: todo.pop(name) for name, got in zip(names, digests, strict=True) if got == sums[name][1]}
    return todo, same


def _summed(entries: Iterable[Entry], sums: Sums) -> Iterator[Entry]:
    """The entries; notes size and sha256 of files that are in no archive."""
    for entry in entries:
        if entry.path and entry.data is not None:
            sums[entry.path] = (len(entry.data), hashlib.sha256(entry.data).digest())
        yield entry


def _from_parquet(source: str, column: str) -> Iterator[pa.Table]:
    """The rows of Parquet files with the image column named `image` and all other columns as they are."""
    for store, file in open_source(source):
        with opened_parquet(store, file) as parquet:
            find_image_column(parquet.schema_arrow, column)
            require_ids(parquet.schema_arrow)
            first_row = 0
            for batch in batches(parquet, BATCH_ROWS):
                table = with_folder_columns(pa.Table.from_batches([batch]), file.name)
                table = with_image_fields(table, column)
                yield _normalised(table, column, file.name, first_row)
                first_row += batch.num_rows


def _normalised(table: pa.Table, column: str, file: str, first_row: int) -> pa.Table:
    """`id` and `image` first; another column that is named `image` becomes `source_image`."""
    images = [{"bytes": image_bytes(cell, lambda _: None), "path": _path(cell)} for cell in values(table[column])]
    columns = {"id": pa.array(row_ids(file, first_row, table), pa.string()), "image": pa.array(images, IMAGE)}
    for name in table.column_names:
        if name not in ("id", column):
            columns["source_image" if name == "image" else name] = table[name]
    out = pa.table(columns, metadata=table.schema.metadata)
    return out.replace_schema_metadata(with_image_features(out.schema, ["image"]).metadata)


def _path(cell: object) -> str | None:
    if isinstance(cell, dict):
        return cell.get("path")
    return cell if isinstance(cell, str) else None
