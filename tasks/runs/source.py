"""What a source may be: files, a glob, a finished run, generations, or a curated dataset."""

from __future__ import annotations

import os
import re

from bfr_models.errors import UsageError, did_you_mean
from tasks.runs.layout import (
    COMMITS,
    CURATION,
    CURATION_UNFINISHED,
    DATA,
    GENERATIONS,
    MANIFEST,
    PACKED,
    PLAN,
    POINTER,
    RECORD,
    generation_folder,
)
from tasks.runs.manifest import data_files
from tasks.runs.packed import read_packed
from tasks.runs.pointer import read_pointer
from tasks.storage.filesystem import split_file
from tasks.storage.globs import split_glob
from tasks.storage.redaction import redact, redact_text
from tasks.storage.refusals import cannot_read
from tasks.storage.retry import retry_deadline
from tasks.storage.store import FileVersion, Store

_TABLES = {
    "Delta Lake": re.compile(r"(^|/)_delta_log/"),
    "Apache Hudi": re.compile(r"(^|/)\.hoodie/"),
    "Apache Iceberg": re.compile(r"(^|/)metadata/[^/]+\.metadata\.json$"),
}


def open_source(url: str) -> list[tuple[Store, FileVersion]]:
    """The Parquet files behind a source URL (a folder, a glob or one file), sorted by path.

    Skips names that start with `_` or `.`. For a finished run (it has a `run.json`), these are the data files as of its
    last finish. UsageError if there is nothing, or nothing readable.
    """
    try:
        store, found = _look(url)
    except UsageError:
        raise
    except Exception as error:  # each storage library has its own types: aiohttp's, botocore's, google's
        raise cannot_read(url, error) from error
    _require_no_table(url, found)
    files = [file for file in _of_the_dataset(url, store, found) if _is_parquet(file.name)]
    if not found:
        raise UsageError(f"expected files at {redact(url)}, found nothing; check the path{_like(url)}")
    if not files:
        raise UsageError(
            f"expected *.parquet files at {redact(url)}, found {len(found)} files and none of that kind; check the "
            f"path{_like(url)}, or make a dataset of pictures with `bfr pack SRC DST`"
        )
    if odd := [file.path for file in files if not _is_text(file.path)]:
        raise UsageError(
            f"expected file names in UTF-8 at {redact(url)}, found {os.fsencode(odd[0])!r}; rename it (convmv does so "
            "for a whole folder)"
        )
    if odd := [file.path for file in files if ".." in file.path.split("/")]:
        raise UsageError(
            f"expected keys without a step `..` at {redact(url)}, found {odd[0]!r}; copy it to another key, or name "
            "the files that are meant"
        )
    return [(store, file) for file in files]


def _require_no_table(url: str, found: list[FileVersion]) -> None:
    """UsageError for a folder in which a log says which of the files count: others are of older versions."""
    kind = next((kind for file in found for kind, log in _TABLES.items() if log.search(file.path)), "")
    if kind:
        raise UsageError(
            f"expected Parquet files that all count at {redact(url)}, found a table of {kind}, which keeps rows that "
            "were replaced; write its present version to another folder, or name the files that count by a glob"
        )


def _like(url: str) -> str:
    """A name beside it that a mistyped local path may have meant."""
    folder, name = os.path.split(url.rstrip("/"))
    if "://" in url or os.path.lexists(url) or not os.path.isdir(folder):
        return ""
    return did_you_mean(name, os.listdir(folder)).replace("; ", " (").replace("?", "?)")


def _look(url: str) -> tuple[Store, list[FileVersion]]:
    url = url.rstrip("/")
    if url.startswith(("http://", "https://")):
        with retry_deadline(10):  # a mistyped address refuses connections, too: do not retry that for minutes
            return _one_file(url)  # plain web servers cannot list
    store = Store(url)
    if (pattern := split_glob(url)) is not None and not store.exists(""):
        store = Store(pattern[0])
        return store, store.glob(pattern[1])
    try:
        found = store.versions()
    except PermissionError:  # a named object may be read in a bucket that may not be listed
        if "/" not in url.partition("://")[2]:
            raise
        return _one_file(url)
    return _one_file(url) if [file.path for file in found] == [""] else (store, found)


def _one_file(url: str) -> tuple[Store, list[FileVersion]]:
    folder, name = split_file(url)
    store = Store(folder)
    return store, [store.info(name)]


def _of_the_dataset(url: str, store: Store, found: list[FileVersion]) -> list[FileVersion]:
    """The dataset's files: those of `data/` for a finished run, a curated dataset or the current generation, else
    all."""
    tops = {file.path.partition("/")[0] for file in found}
    if PACKED in tops:
        named = set(read_packed(store).parts)  # another packing may have files here that do not count (yet)
        return [file for file in found if file.path in named]
    if {POINTER, GENERATIONS} <= tops:
        current = str(read_pointer(store).generation)
        return _data_files(url, store, found, f"{generation_folder(current)}/")
    if tops & {RECORD, CURATION}:
        return _data_files(url, store, found, "")
    if CURATION_UNFINISHED in tops:
        raise UsageError(
            f"expected a dataset at {redact(url)}, found one that `bfr curate` has not finished; run it again"
        )
    if {PLAN, COMMITS} <= tops:
        raise UsageError(
            f"expected a dataset or a finished run at {redact(url)}, found a run that is not finished; "
            "run the `bfr restore` command that started it again, or name its files: `.../data/*.parquet`"
        )
    return found


def _data_files(url: str, store: Store, found: list[FileVersion], folder: str) -> list[FileVersion]:
    """The files that the manifest names, if there is one: `data/` may hold more, if the run is being continued."""
    data = {file.path: file for file in found if file.path.startswith(f"{folder}{DATA}/")}
    manifest = f"{folder}{MANIFEST}"
    if manifest not in {file.path for file in found}:
        return list(data.values())
    named = data_files(store.sub(folder.rstrip("/")) if folder else store)
    try:  # ask the store for files that are missing in the listing: the manifest may be newer
        return [data.get(path) or store.info(path) for path in sorted(f"{folder}{path}" for path in named)]
    except FileNotFoundError as error:
        raise UsageError(
            f"expected at {redact(url)} all files that {manifest} names, found one missing "
            f"({redact_text(str(error))}); `bfr verify` says which are"
        ) from error


def _is_text(name: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _is_parquet(path: str) -> bool:
    return path.endswith(".parquet") and not any(_is_hidden(step) for step in path.split("/"))


def _is_hidden(step: str) -> bool:
    return step.startswith(("_", ".")) and step not in (".", "..")  # these occur in object stores
