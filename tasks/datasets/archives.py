"""Reads images that are not a Parquet dataset yet: from folders, zip and tar archives, WebDatasets.

Nothing is extracted to disk, so a hostile member name ("../../etc/passwd") is nothing but a name. Archives are read
forward, in their own order, because a compressed tar can be read in no other way. Links that lead out of the source are
not followed: whoever made the folder could not read what they lead to, perhaps, and this process can.
"""

from __future__ import annotations

import errno
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from glob import has_magic
from typing import IO, TypeVar

from bfr_models.errors import UsageError
from tasks.datasets import archive_limits
from tasks.datasets.archive_limits import (
    CHUNK,
    MAX_SIDECAR_BYTES,
    BoundedTar,
    Budget,
    Texts,
    members,
    open_tar,
    size_of,
)
from tasks.datasets.file_kinds import has_no_extension, is_hidden, is_image, is_image_by_start, why_skipped
from tasks.storage.filesystem import split_file
from tasks.storage.globs import split_glob
from tasks.storage.local_disk import NotAFileError
from tasks.storage.redaction import redact
from tasks.storage.refusals import cannot_read
from tasks.storage.store import PARALLEL_READS, FileVersions, Store

SIDECARS = ("json", "txt", "cls")  # files beside an image in a WebDataset; they become columns
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)  # LZMA takes the memory that the file says
_DOS = 0  # the system that made a zip, by its format
OTHER_FIELD = "a text of a sample whose images have texts of their own, or another field of it"
LEADS_OUT = "a link that leads out of the source (--follow-links follows it)"

Member = TypeVar("Member")
_DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, struct.error,
    RuntimeError,  # zipfile's for an encrypted member, an unknown compression, and what recurses
    ValueError, LookupError, ArithmeticError,  # zipfile's and tarfile's for numbers that they did not expect
)  # fmt: skip
_OF_CONTENT = (None, errno.EINVAL)  # the numbers of an OSError that is about bytes; others are about where they lie


@dataclass(frozen=True)
class Entry:
    """A file of the source. `skipped`: why it produces no row; `lost`: why its row has no `data`."""

    name: str
    data: bytes | None = None
    path: str = ""  # in its store, of a file that is in no archive
    skipped: str = ""
    lost: str = ""
    sidecars: Mapping[str, str | None] = field(default_factory=dict)


def read_entries(
    source: str, *, follow_links: bool = False, only: Collection[str] | None = None
) -> Iterator[Entry] | None:
    """The files of a folder, a glob or of archives, in a stable order; None if the source is Parquet. With `only`, the
    images or archives of these names alone, as `image_files` has them."""
    folder, name = split_file(source.rstrip("/"))
    if name.lower().endswith(ARCHIVES) and not has_magic(source):
        return _archive(Store(folder), name)
    if name.endswith(".parquet"):
        return None
    store, files, follow_links = list_files(source, follow_links=follow_links)
    sizes = {file.path: file.size for file in files if only is None or file.path in only}
    names = [path for path in sizes if not is_hidden(path)]
    images = any(map(is_image, names))
    if parquet := [path for path in names if path.endswith(".parquet")]:
        if images:
            raise both_kinds(source, next(filter(is_image, names)), parquet[0])
        return None
    images_by_start = find_by_start(store, names)
    images = images or bool(images_by_start)
    archives = [path for path in names if is_archive(path)]
    if archives and not images:
        return (entry for path in archives for entry in _inner_archive(store, path, follow_links))
    return (_file(store, path, size, follow_links, is_known=path in images_by_start) for path, size in sizes.items())


def find_by_start(store: Store, paths: Iterable[str]) -> set[str]:
    """Those of the files that are images though their names have no extension: their first bytes say so."""
    asked = [path for path in paths if has_no_extension(path)]
    with ThreadPoolExecutor(PARALLEL_READS) as readers:
        return {path for path, found in zip(asked, readers.map(partial(_starts, store), asked), strict=True) if found}


def _starts(store: Store, path: str) -> bool:
    if store.leads_out(path):
        return False
    try:
        with store.open_input(path) as opened:
            return is_image_by_start(opened.read(64))
    except (FileNotFoundError, NotAFileError):  # a dangling link; a pipe, a device or a socket
        return False


def both_kinds(source: str, image: str, parquet: str) -> UsageError:
    """What to raise for a source that is half a folder of images and half a dataset: one half would be left out."""
    place = redact(source).rstrip("/")
    return UsageError(
        f"expected images or Parquet at {place}, found both ({as_text(image)}, {as_text(parquet)}); move one kind out, "
        f"or name the other by a pattern: '{place}/**/*.parquet'"
    )


def list_files(source: str, *, follow_links: bool) -> tuple[Store, FileVersions, bool]:
    """The folder of a source, the files, and whether links may be followed. A single file, or a link to one, may: who
    named it meant it."""
    source = source.rstrip("/")
    if source.startswith(("http://", "https://")):  # web servers do not list
        return *_named(source), True
    store = Store(source)
    if (pattern := split_glob(source)) is not None and not store.exists(""):
        store = Store(pattern[0])
        return store, store.glob(pattern[1]), follow_links
    try:
        files = store.versions(follow_links=follow_links)
    except PermissionError as error:  # a named object may be read in a bucket that may not be listed
        return *_named(source, error), True
    if [file.path for file in files] != [""]:
        return store, files, follow_links
    folder, name = split_file(source)
    return Store(folder), [replace(files[0], path=name)], True


def _named(source: str, refused: PermissionError | None = None) -> tuple[Store, FileVersions]:
    folder, name = split_file(source)
    try:
        return Store(folder), [Store(folder).info(name)]
    except (OSError, UsageError) as error:  # the latter for a bucket, which is in no folder
        raise cannot_read(source, refused or error) from error


def _file(store: Store, path: str, size: int, follow_links: bool, *, is_known: bool = False) -> Entry:
    name = as_text(path)
    if not is_known and (why := why_left_out(store, path, follow_links)):
        return Entry(name, skipped=why)
    if not follow_links and store.leads_out(path):
        return Entry(name, lost=LEADS_OUT)
    if size > archive_limits.MAX_FILE_BYTES:
        return Entry(name, lost=_more_than_allowed(size))
    try:
        return Entry(name, store.read(path), path)
    except (FileNotFoundError, NotAFileError) as error:  # a dangling link; a pipe, a device or a socket
        return Entry(name, lost=f"expected a file, found {error.strerror or error}")


def why_left_out(store: Store, path: str, follow_links: bool = False) -> str:
    """Why a file of a folder has no row; "" for an image."""
    why = why_skipped(path)
    return LEADS_OUT if why and not follow_links and store.leads_out(path) else why


def _inner_archive(store: Store, name: str, follow_links: bool) -> Iterator[Entry]:
    if not follow_links and store.leads_out(name):
        yield Entry(name, skipped=LEADS_OUT)
    else:
        yield from _archive(store, name)


def _archive(store: Store, name: str) -> Iterator[Entry]:
    is_zip = name.lower().endswith(".zip")
    try:
        with store.open_input(name, sequential=True) as opened:
            budget = Budget(size_of(opened))
            yield from _zip(opened, budget) if is_zip else _tar(opened, budget)
    except FileNotFoundError:
        raise UsageError(f"expected an archive at {redact(store.url(name))}, found nothing; check the path") from None
    except _DAMAGE as error:
        _require_damage(error)
        raise UsageError(
            f"expected a whole archive at {redact(store.url(name))}, found a broken one ({error}); download it again, "
            "or extract what is left of it and pack the folder"
        ) from error


def _zip(opened: IO[bytes], budget: Budget) -> Iterator[Entry]:
    with zipfile.ZipFile(opened) as archive:
        for member in archive.infolist():
            budget.count_member(len(member.filename))
            # Old Windows tools put `\\` between folders, where no name can have one.
            name = member.filename.replace("\\", "/") if member.create_system == _DOS else member.filename
            if name.endswith("/"):
                continue
            if why := why_skipped(name):
                yield Entry(name, skipped=why)
            elif member.compress_type not in ZIP_METHODS:
                yield Entry(name, lost="expected a member that is stored or compressed by deflate or bzip2")
            else:
                data, lost = _bytes(archive.open, member, member.file_size, budget)
                yield Entry(name, data, lost=lost)


def _tar(opened: IO[bytes], budget: Budget) -> Iterator[Entry]:
    with open_tar(opened, budget) as (archive, bounded):
        found, texts = _contents(archive, bounded, budget)
        beside = {m.name: _sidecars(m.name, texts) for m in found if not why_skipped(m.name)}
        used = {text for names in beside.values() for text in names.values()}
        keys = set(map(_key, beside))
        yield from (
            Entry(as_text(name), skipped=OTHER_FIELD if _key(name) in keys else why_skipped(name))
            for name in texts
            if name not in used
        )
        for member in found:
            name = as_text(member.name)
            if why := why_skipped(member.name):
                yield Entry(name, skipped=why)
                continue
            bounded.allow(archive_limits.MAX_FILE_BYTES + CHUNK)
            data, lost = _bytes(archive.extractfile, member, member.size, budget)
            names = beside[member.name]
            columns = {kind: texts[names[kind]] if kind in names else None for kind in SIDECARS}
            yield Entry(name, data, lost=lost, sidecars=columns if used else {})


def _sidecars(image: str, texts: Texts) -> dict[str, str]:
    """Kind -> name of the texts beside an image of a WebDataset: its own (`22.05.jpg` and `22.05.json`), or those of
    its sample, whose key ends at the first dot of the file name (`000.lq.png` and `000.json`)."""
    stems = (image.rpartition(".")[0], _key(image))
    found = {kind: next((f"{s}.{kind}" for s in stems if f"{s}.{kind}" in texts), None) for kind in SIDECARS}
    return {kind: name for kind, name in found.items() if name is not None}


def _contents(archive: tarfile.TarFile, bounded: BoundedTar, budget: Budget) -> tuple[list[tarfile.TarInfo], Texts]:
    """All members but the sidecars, and the texts of the sidecars, in one pass: a sidecar may come after its image."""
    others, texts = [], Texts()
    for member in members(archive, bounded, budget):
        if member.isdir():
            continue
        stem, _, kind = member.name.rpartition(".")
        kind = kind.lower()  # as WebDataset's own reader has it
        if member.isfile() and kind in SIDECARS and not is_hidden(member.name) and member.size <= MAX_SIDECAR_BYTES:
            budget.count_text(member.size)
            bounded.allow(MAX_SIDECAR_BYTES + CHUNK)
            data, _ = _bytes(archive.extractfile, member, member.size, budget)
            texts.add(f"{stem}.{kind}", data or b"")
        else:
            others.append(member)
    return others, texts


def _bytes(
    opener: Callable[[Member], IO[bytes] | None], member: Member, size: int, budget: Budget
) -> tuple[bytes | None, str]:
    """A member's bytes, or None and the reason: too large (by its header, or whatever that claims), damaged, encrypted,
    a dangling link."""
    if size > archive_limits.MAX_FILE_BYTES:
        return None, _more_than_allowed(size)
    data = io.BytesIO()
    try:
        opened = opener(member)
        if opened is None:
            return None, "expected a file in the archive, found something else"
        while chunk := opened.read(CHUNK):
            budget.count_bytes(data.write(chunk))
            if data.tell() > archive_limits.MAX_FILE_BYTES:
                return None, _more_than_allowed(data.tell())
    except _DAMAGE as error:
        _require_damage(error)
        return None, f"expected a whole member of the archive, found a broken one ({type(error).__name__}: {error})"
    return data.getvalue(), ""


def _require_damage(error: BaseException) -> None:
    """Raises an error of the storage again: it may be transient, and says nothing of the archive."""
    if isinstance(error, OSError) and error.errno not in _OF_CONTENT:
        raise error


def _more_than_allowed(size: int) -> str:
    return f"expected at most {archive_limits.MAX_FILE_BYTES} bytes, found {size} or more"


def _key(name: str) -> str:
    """The key by which WebDataset groups files: the path up to the first dot of the file name."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def as_text(name: str) -> str:
    """A file name as text: one whose bytes are not UTF-8, as on old disks and in old archives, is taken for Latin-1."""
    try:
        name.encode()
    except UnicodeEncodeError:  # Python holds such bytes as lone surrogates
        return name.encode(errors="surrogateescape").decode("latin-1")
    return name


def is_archive(path: str) -> bool:
    return path.lower().endswith(ARCHIVES)
