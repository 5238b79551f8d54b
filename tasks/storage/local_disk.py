"""Atomic file writes on a local (or mounted) disk, and the walk that lists files."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import PurePath

from bfr_models.errors import UsageError

_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def replace_file(path: str, data: bytes) -> None:
    """Writes a file atomically, replacing an existing one."""
    _publish(path, data, os.replace)


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


def list_files(folder: str) -> list[str]:
    """All files below a folder, as sorted relative paths with `/`; [""] for a path that is itself a file.

    Symbolic links are followed, but each real folder is entered once. A folder that cannot be read raises, so that no
    file is left out silently.
    """
    if os.path.isfile(folder):
        return [""]
    return sorted(PurePath(path).relative_to(folder).as_posix() for path in _walk(folder))


def temporary_files(folder: str) -> list[str]:
    """Temporary files that killed writers left below a folder, as sorted relative paths."""
    found = (os.path.join(place, name) for place, _, files in os.walk(folder) for name in files if _is_temporary(name))
    return sorted(PurePath(path).relative_to(folder).as_posix() for path in found)


def _publish(path: str, data: bytes, publish: Callable[[str, str], None]) -> None:
    """Writes a temporary file beside `path` (so on its filesystem) and publishes it by `publish(temporary, path)`."""
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    temporary = os.path.join(folder, f".{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # without it, a power cut can leave the name with no bytes behind it
        publish(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def _walk(folder: str) -> Iterator[str]:
    entered = set()
    for place, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        real = os.path.realpath(place)
        if real in entered:
            folders.clear()  # a link to a folder above or beside: os.walk must not descend again
            continue
        entered.add(real)
        folders.sort()
        yield from (os.path.join(place, name) for name in files if not _is_temporary(name))


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(".tmp")


def _raise(error: OSError) -> None:
    raise error
