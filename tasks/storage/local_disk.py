"""Atomic file writes on a local (or mounted) disk, and the walk that lists files."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import PurePath
from typing import BinaryIO

from bfr_models.errors import UsageError

_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class NotAFileError(OSError):
    """There is something else than a file or a folder."""


def replace_file(path: str, data: bytes, *, private: bool = False) -> None:
    """Writes a file atomically, replacing an existing one; a private one is its owner's, whatever the umask."""
    _publish(path, data, os.replace, 0o600 if private else 0o666)


def create_file(path: str, data: bytes) -> bool:
    """Writes a file atomically unless it exists; False if it does. Exactly one of several racing callers gets True."""
    try:
        _publish(path, data, os.link)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        raise UsageError(
            f"expected a disk with hard links at {os.path.dirname(path)} (create-only files need them), "
            f"found one without ({error.strerror}); write to another disk or to an object store"
        ) from error
    return True


def require_writable(folder: str) -> None:
    """UsageError if nothing can be written to a folder that is there or is to be made."""
    place = os.path.abspath(folder)
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    if not os.path.isdir(place):
        found = "a file; correct the path"
        if not os.path.exists(place):
            found = f"a link to {os.path.realpath(place)}, where nothing is; mount or make that, or correct the path"
        raise UsageError(f"expected a folder at {place}, found {found}")
    if not os.access(place, os.W_OK | os.X_OK):
        read_only = os.statvfs(place).f_flag & os.ST_RDONLY
        why = "a read-only file system" if read_only else "no permission for this user"
        raise UsageError(f"expected to be able to write to {folder}, found {why} at {place}; use another destination")
    if place != os.path.abspath(folder):
        _require_takes_folders(place, folder)


def _require_takes_folders(place: str, folder: str) -> None:
    """UsageError if no folder can be made where one is missing: that a user may write says little of /proc or of a full
    disk."""
    try:
        os.rmdir(tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=place))
    except OSError as error:
        raise UsageError(
            f"expected a folder that is there or can be made at {folder}, found that {place} takes none "
            f"({error.strerror}); use another destination"
        ) from error


def open_file(path: str) -> BinaryIO:
    """A file for reading. NotAFileError for what may wait for ever or do something when it is opened."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # `open` itself has the right error for a folder
        raise NotAFileError(errno.EINVAL, "a pipe, a socket or a device", path)
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))


def read_file(path: str) -> bytes:
    with open_file(path) as file:
        return file.read()


def list_files(folder: str, *, follow_links: bool = True) -> list[str]:
    """All files below a folder, as sorted relative paths with `/`; [""] for a path that is itself a file.

    Symbolic links are followed, but each real folder is entered once. Without `follow_links` a link to a folder outside
    is not entered and listed as if it were a file. A folder that cannot be read raises, so that no file is left out
    silently.
    """
    if os.path.isfile(folder):
        return [""]
    found = _walk(folder, within=None if follow_links else folder)
    return sorted(PurePath(path).relative_to(folder).as_posix() for path in found)


def leads_out(folder: str, path: str) -> bool:
    """Whether a path below the folder is, by a link, a path outside of it."""
    inside = os.path.realpath(folder)
    return os.path.commonpath([inside, os.path.realpath(path)]) != inside


def temporary_files(folder: str) -> list[str]:
    """Temporary files that killed writers left below a folder, as sorted relative paths."""
    found = (os.path.join(place, name) for place, _, files in os.walk(folder) for name in files if _is_temporary(name))
    return sorted(PurePath(path).relative_to(folder).as_posix() for path in found)


def _publish(path: str, data: bytes, publish: Callable[[str, str], None], mode: int = 0o666) -> None:
    """Writes a temporary file beside `path` (so on its filesystem) and publishes it by `publish(temporary, path)`."""
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    temporary = os.path.join(folder, f".{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # without it, a power cut can leave the name with no bytes behind it
        publish(temporary, path)
    except OSError as error:
        if error.filename is None:  # a full disk is told without its place
            error.filename = path
        raise
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def _walk(folder: str, within: str | None) -> Iterator[str]:
    entered = set()
    for place, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        real = os.path.realpath(place)
        if real in entered:
            folders.clear()  # a link to a folder above or beside: os.walk must not descend again
            continue
        entered.add(real)
        outside = [name for name in folders if within and leads_out(within, os.path.join(place, name))]
        folders[:] = sorted(set(folders) - set(outside))
        yield from (os.path.join(place, name) for name in outside)
        yield from (os.path.join(place, name) for name in files if not _is_temporary(name))


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(".tmp")


def _raise(error: OSError) -> None:
    raise error
