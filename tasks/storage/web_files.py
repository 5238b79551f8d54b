"""Files on web servers, of which some do not give parts."""

from __future__ import annotations

from tempfile import SpooledTemporaryFile
from typing import IO, Any, BinaryIO, cast

from tasks.storage.retry import with_retries

PROTOCOLS = ("http", "https")
_IN_MEMORY = 64 * 2**20


def copy_unless_in_parts(fs: Any, path: str) -> BinaryIO | None:
    """A copy of a file whose server does not give parts of it, in memory or, if it is large, on disk; None if it
    does."""
    opened = with_retries(fs.open, path, "rb", cache_type="none")
    if opened.size is not None and with_retries(_gives_parts, opened):
        return None
    copy = SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - it is gone with whoever reads it
    with_retries(_download, fs, path, copy)
    copy.seek(0)
    return cast(BinaryIO, copy)


def _gives_parts(opened: Any) -> bool:
    """Whether a server gives the last byte alone: of one that would send the whole, fsspec refuses to read it."""
    try:
        opened.seek(max(0, opened.size - 1))
        return len(opened.read(1)) == min(1, opened.size)
    except ValueError:
        return False


def _download(fs: Any, path: str, copy: IO[bytes]) -> None:
    copy.seek(0)
    copy.truncate()
    fs.get_file(path, copy)
