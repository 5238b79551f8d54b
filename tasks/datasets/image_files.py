"""Which of a source's files are to be packed, and what tells one version of them from another."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Collection
from dataclasses import dataclass
from glob import has_magic

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.datasets.archive_limits import CHUNK
from tasks.datasets.archives import as_text, both_kinds, find_by_start, is_archive, list_files, why_left_out
from tasks.datasets.file_kinds import has_no_extension, is_hidden, is_image
from tasks.storage.filesystem import split_file
from tasks.storage.local_disk import NotAFileError
from tasks.storage.store import FileVersion, Store

_LOOK_ROWS = 64  # of a Parquet file beside images


@dataclass(frozen=True)
class ImageFiles:
    """The images at a source or, if there are none, its archives, by their paths in the store."""

    store: Store
    files: dict[str, FileVersion]
    others: dict[str, str]  # names of the other files, and why they are left out


def image_files(source: str, known: Collection[str] = ()) -> ImageFiles | None:
    """The images or archives at a source; None if it has neither, or if it is a dataset. UsageError if it has images
    and Parquet, unless the images are what the rows of the Parquet name. Of files without an extension, those in
    `known` are images and others are looked into."""
    folder, name = split_file(source.rstrip("/"))
    if is_archive(name) and not has_magic(name):
        store = Store(folder)
        return ImageFiles(store, {name: store.info(name)}, {}) if store.exists(name) else None
    if name.endswith(".parquet") or source.startswith(("http://", "https://")):  # web servers do not list
        return None
    store, listed, _ = list_files(source, follow_links=False)
    shown = [file for file in listed if not is_hidden(file.path)]
    images = {file.path: file for file in shown if is_image(file.path)}
    parquet = [file.path for file in shown if file.path.endswith(".parquet")]
    if parquet:
        if images and not _names_images(store, parquet[0], images.keys()):
            raise both_kinds(source, next(iter(images)), parquet[0])
        return None
    blank = find_by_start(store, (file.path for file in shown if file.path not in known))
    blank |= {file.path for file in shown if has_no_extension(file.path) and file.path in known}
    images = {file.path: file for file in shown if is_image(file.path) or file.path in blank}
    files = images or {file.path: file for file in shown if is_archive(file.path)}
    others = {as_text(f.path): why_left_out(store, f.path) for f in listed if f.path not in files}
    return ImageFiles(store, files, others) if files else None


def digest_of(store: Store, path: str) -> bytes | None:
    """The sha256 of a file of a source; None for one that is not read."""
    if store.leads_out(path):
        return None
    try:
        with store.open_input(path, sequential=True) as opened:
            digest = hashlib.sha256()
            while chunk := opened.read(CHUNK):
                digest.update(chunk)
            return digest.digest()
    except (FileNotFoundError, NotAFileError):  # a dangling link; a pipe, a device or a socket
        return None


def _names_images(store: Store, path: str, images: Collection[str]) -> bool:
    """Whether the rows of a Parquet file hold no images but name these: then they are a part of the dataset."""
    try:
        with store.open_input(path) as opened:
            batch = next(pq.ParquetFile(opened).iter_batches(_LOOK_ROWS), None)
    except (pa.ArrowException, OSError):
        return False
    cells = [] if batch is None else [cell for column in batch.columns for cell in column.to_pylist()]
    folder = f"{store.url().rstrip('/')}/"
    return not any(map(_holds_bytes, cells)) and any(_address(cell, folder) in images for cell in cells)


def _holds_bytes(cell: object) -> bool:
    return bool(isinstance(cell, bytes) or (isinstance(cell, dict) and cell.get("bytes")))


def _address(cell: object, folder: str) -> str | None:
    """The path in the folder that a cell may name, alone or with that of the folder."""
    cell = cell.get("path") if isinstance(cell, dict) else cell
    return posixpath.normpath(cell.removeprefix("file://").removeprefix(folder)) if isinstance(cell, str) else None
