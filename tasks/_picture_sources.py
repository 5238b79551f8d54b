"""Where pictures come from before they are a dataset: folders, zip and tar archives, WebDatasets.

Nothing is extracted to disk, so a hostile member name is only a name. Archives are read forward, in their own
order, as a compressed tar wants it.
"""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO

from bfr_models.errors import UsageError
from tasks._connection import redact
from tasks._storage import Store

PICTURES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"})
SIDECARS = ("json", "txt", "cls")  # of a WebDataset: they become columns
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
MAX_FILE_BYTES = 1024 * 2**20
MAX_SIDECAR_BYTES = 2**20


@dataclass(frozen=True)
class Entry:
    """A file of the source; `skipped` says why it is no row, `lost` why it is a row without `data`."""

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
    names = [path for path in sizes if not _hidden(path)]
    pictures = any(map(_is_picture, names))
    if any(path.endswith(".parquet") for path in names):
        if pictures:
            raise UsageError(f"expected pictures or Parquet at {redact(source)}, found both; pack them one by one")
        return None
    archives = [path for path in names if path.lower().endswith(ARCHIVES)]
    if archives and not pictures:
        return (entry for path in archives for entry in _archive(store, path))
    return (_file(store, path, size) for path, size in sizes.items())


def _file(store: Store, path: str, size: int) -> Entry:
    if why := _not_a_picture(path):
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
    except Exception as error:
        if not _is_damage(error):
            raise
        raise UsageError(
            f"expected a whole archive at {redact(store.url(name))}, found a broken one ({error}); fetch it again, "
            "or unpack what is left of it and pack the folder"
        ) from error


def _zip(opened: IO[bytes]) -> Iterator[Entry]:
    with zipfile.ZipFile(opened) as archive:
        for member in archive.infolist():
            if member.is_dir():
                continue
            if why := _not_a_picture(member.filename):
                yield Entry(member.filename, skipped=why)
            else:
                data, lost = _bytes(lambda chosen=member: archive.open(chosen))  # type: ignore[misc]
                yield Entry(member.filename, data, lost=lost)


def _tar(opened: IO[bytes]) -> Iterator[Entry]:
    with tarfile.open(fileobj=opened) as archive:
        pictures, texts = _tar_contents(archive)
        is_webdataset = any(f"{_key(member.name)}.{kind}" in texts for member in pictures for kind in SIDECARS)
        if not is_webdataset:
            yield from (Entry(name, skipped="not a picture by its name") for name in texts)
        for member in pictures:
            if why := _not_a_picture(member.name):
                yield Entry(member.name, skipped=why)
                continue
            data, lost = _bytes(lambda chosen=member: archive.extractfile(chosen))  # type: ignore[misc]
            columns = {kind: texts.get(f"{_key(member.name)}.{kind}") for kind in SIDECARS}
            yield Entry(member.name, data, lost=lost, sidecars=columns if is_webdataset else {})
