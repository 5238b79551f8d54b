"""Reads images that are not a Parquet dataset yet: from folders, zip and tar archives, WebDatasets.

Nothing is extracted to disk, so a hostile member name ("../../etc/passwd") is nothing but a name. Archives are read
forward, in their own order, because a compressed tar can be read in no other way.
"""

from __future__ import annotations

import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, TypeVar

from bfr_models.errors import UsageError
from tasks.storage.redaction import redact
from tasks.storage.store import Store

EXTENSIONS = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"})
SIDECARS = ("json", "txt", "cls")  # files beside an image in a WebDataset; they become columns
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
MAX_FILE_BYTES = 1024 * 2**20  # a zip bomb may unpack to any size
MAX_SIDECAR_BYTES = 2**20  # all sidecars of an archive are in memory at once

Member = TypeVar("Member")
_DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError,
    RuntimeError, NotImplementedError,  # zipfile's for an encrypted member and an unknown compression
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A file of the source. `skipped`: why it produces no row; `lost`: why its row has no `data`."""

    name: str
    data: bytes | None = None
    skipped: str = ""
    lost: str = ""
    sidecars: Mapping[str, str | None] = field(default_factory=dict)


def read_entries(source: str) -> Iterator[Entry] | None:
    """The files of a folder or of archives, in a stable order; None if the source is Parquet."""
    folder, slash, name = source.rstrip("/").rpartition("/")
    if name.lower().endswith(ARCHIVES):
        return _archive(Store(folder or slash or "."), name)
    if name.endswith(".parquet"):
        return None
    store = Store(source)
    sizes = {file.path: file.size for file in store.versions()}
    if list(sizes) == [""]:  # the source is a single file
        store, sizes = Store(folder or slash or "."), {name: sizes[""]}
    names = [path for path in sizes if not _hidden(path)]
    images = any(map(_is_image, names))
    if any(path.endswith(".parquet") for path in names):
        if images:
            raise UsageError(f"expected images or Parquet at {redact(source)}, found both; pack them separately")
        return None
    archives = [path for path in names if path.lower().endswith(ARCHIVES)]
    if archives and not images:
        return (entry for path in archives for entry in _archive(store, path))
    return (_file(store, path, size) for path, size in sizes.items())


def _file(store: Store, path: str, size: int) -> Entry:
    if why := _why_skipped(path):
        return Entry(path, skipped=why)
    if size > MAX_FILE_BYTES:
        return Entry(path, lost=f"expected at most {MAX_FILE_BYTES} bytes, found {size}")
    return Entry(path, store.read(path))


def _archive(store: Store, name: str) -> Iterator[Entry]:
    is_zip = name.lower().endswith(".zip")
    try:
        with store.open_input(name, sequential=True) as opened:
            yield from _zip(opened) if is_zip else _tar(opened)
    except FileNotFoundError:
        raise UsageError(f"expected an archive at {redact(store.url(name))}, found nothing; check the path") from None
    except _DAMAGE as error:
        raise UsageError(
            f"expected a whole archive at {redact(store.url(name))}, found a broken one ({error}); download it again, "
            "or extract what is left of it and pack the folder"
        ) from error


def _zip(opened: IO[bytes]) -> Iterator[Entry]:
    with zipfile.ZipFile(opened) as archive:
        for member in archive.infolist():
            if member.is_dir():
                continue
            if why := _why_skipped(member.filename):
                yield Entry(member.filename, skipped=why)
            else:
                data, lost = _bytes(archive.open, member)
                yield Entry(member.filename, data, lost=lost)


def _tar(opened: IO[bytes]) -> Iterator[Entry]:
    with tarfile.open(fileobj=opened) as archive:
        members, texts = _contents(archive)
        keys = {_key(member.name) for member in members if _is_image(member.name)}
        is_webdataset = any(_key(name) in keys for name in texts)
        yield from (Entry(name, skipped=_why_skipped(name)) for name in texts if _key(name) not in keys)
        for member in members:
            if why := _why_skipped(member.name):
                yield Entry(member.name, skipped=why)
                continue
            data, lost = _bytes(archive.extractfile, member)
            columns = {kind: texts.get(f"{_key(member.name)}.{kind}") for kind in SIDECARS}
            yield Entry(member.name, data, lost=lost, sidecars=columns if is_webdataset else {})


def _contents(archive: tarfile.TarFile) -> tuple[list[tarfile.TarInfo], dict[str, str]]:
    """All members but the sidecars, and the texts of the sidecars, in one pass: a sidecar may come after its image."""
    members, texts = [], {}
    for member in archive:
        if member.isdir():
            continue
        kind = member.name.rpartition(".")[2]
        if member.isfile() and kind in SIDECARS and not _hidden(member.name) and member.size <= MAX_SIDECAR_BYTES:
            data, _ = _bytes(archive.extractfile, member)
            texts[member.name] = (data or b"").decode(errors="replace")
        else:
            members.append(member)
    return members, texts


def _bytes(opener: Callable[[Member], IO[bytes] | None], member: Member) -> tuple[bytes | None, str]:
    """A member's bytes, or None and the reason: too large (whatever its header claims), damaged, encrypted, a dangling
    link."""
    try:
        opened = opener(member)
        data = opened.read(MAX_FILE_BYTES + 1) if opened else None
    except (*_DAMAGE, KeyError, RecursionError) as error:
        return None, f"expected a whole member of the archive, found a broken one ({type(error).__name__}: {error})"
    if data is None:
        return None, "expected a file in the archive, found something else"
    if len(data) > MAX_FILE_BYTES:
        return None, f"expected at most {MAX_FILE_BYTES} bytes, found more"
    return data, ""


def _key(name: str) -> str:
    """The key by which WebDataset groups files: the path up to the first dot of the file name."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def _why_skipped(path: str) -> str:
    if _hidden(path):
        return "hidden"
    return "" if _is_image(path) else "not an image by its extension"


def _is_image(path: str) -> bool:
    name = path.rpartition("/")[2].lower()
    return "." in name and f".{name.rpartition('.')[2]}" in EXTENSIONS


def _hidden(path: str) -> bool:
    return any((step.startswith(".") and step not in (".", "..")) or step == "__MACOSX" for step in path.split("/"))
