"""Where pictures come from before they are a dataset: folders, zip and tar archives, WebDatasets.

Nothing is extracted to disk, so a hostile member name is only a name.
"""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from bfr_models.errors import UsageError
from tasks._storage import Store

PICTURES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"})
SIDECARS = ("json", "txt", "cls")  # of a WebDataset: they become columns
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
MAX_FILE_BYTES = 1024 * 2**20


@dataclass(frozen=True)
class Entry:
    """A file of the source; `skipped` says why it is no row. `data` is None when it is too large to hold."""

    name: str
    data: bytes | None = None
    skipped: str = ""
    sidecars: dict[str, str | None] = field(default_factory=dict)


def read_entries(source: str) -> Iterator[Entry] | None:
    """The files of a folder or of archives, in a stable order; None if the source is Parquet."""
    folder, _, name = source.rstrip("/").rpartition("/")
    if name.lower().endswith(ARCHIVES):
        return _archive(Store(folder or ("/" if source.startswith("/") else ".")), name)
    if name.endswith(".parquet"):
        return None
    store = Store(source)
    files = store.versions()
    if not files:
        raise UsageError(f"expected a folder, an archive or Parquet at {source}, found nothing; check the path")
    names = [file.path for file in files if not _hidden(file.path)]
    if any(name.endswith(".parquet") for name in names):
        return None
    archives = [name for name in names if name.lower().endswith(ARCHIVES)]
    if archives and not any(_is_picture(name) for name in names):
        return (entry for name in archives for entry in _archive(store, name))
    sizes = {file.path: file.size for file in files}
    return (_file(store, path, size) for path, size in sizes.items())


def _file(store: Store, path: str, size: int) -> Entry:
    if why := _not_a_picture(path):
        return Entry(path, skipped=why)
    return Entry(path, store.read(path) if size <= MAX_FILE_BYTES else None)


def _archive(store: Store, name: str) -> Iterator[Entry]:
    try:
        with store.open_input(name, sequential=True) as opened:
            if name.lower().endswith(".zip"):
                with zipfile.ZipFile(opened) as archive:
                    yield from _zip(archive)
            else:
                with tarfile.open(fileobj=opened) as archive:
                    yield from _tar(archive)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise UsageError(f"expected a whole archive at {store.url(name)}, found a broken one ({error})") from None


def _zip(archive: zipfile.ZipFile) -> Iterator[Entry]:
    for member in archive.infolist():
        if member.is_dir():
            continue
        if why := _not_a_picture(member.filename):
            yield Entry(member.filename, skipped=why)
        else:
            yield Entry(member.filename, _unzipped(archive, member))


def _unzipped(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes | None:
    """None for a member that is too large, damaged or encrypted: its row says that the picture is missing."""
    try:
        return archive.read(member) if member.file_size <= MAX_FILE_BYTES else None
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError):
        return None


def _tar(archive: tarfile.TarFile) -> Iterator[Entry]:
    members = [member for member in archive.getmembers() if member.isfile()]
    sidecars = {member.name: member for member in members if member.name.rpartition(".")[2] in SIDECARS}
    is_webdataset = any(f"{_key(member.name)}.{kind}" in sidecars for member in members for kind in SIDECARS
                        if _is_picture(member.name))  # fmt: skip
    for member in members:
        if is_webdataset and member.name in sidecars:
            continue
        if why := _not_a_picture(member.name):
            yield Entry(member.name, skipped=why)
            continue
        columns = {kind: _text(archive, sidecars.get(f"{_key(member.name)}.{kind}")) for kind in SIDECARS}
        yield Entry(member.name, _bytes(archive, member), sidecars=columns if is_webdataset else {})


def _bytes(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | None:
    opened = archive.extractfile(member) if member.size <= MAX_FILE_BYTES else None
    return opened.read() if opened else None


def _text(archive: tarfile.TarFile, member: tarfile.TarInfo | None) -> str | None:
    data = _bytes(archive, member) if member else None
    return None if data is None else data.decode(errors="replace")


def _key(name: str) -> str:
    """A WebDataset's key: the path up to the first dot of the file's name."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def _not_a_picture(path: str) -> str:
    if _hidden(path):
        return "hidden"
    return "" if _is_picture(path) else "not a picture by its name"


def _is_picture(path: str) -> bool:
    name = path.rpartition("/")[2].lower()
    return "." in name and f".{name.rpartition('.')[2]}" in PICTURES


def _hidden(path: str) -> bool:
    return any(step.startswith(".") or step == "__MACOSX" for step in path.split("/"))
