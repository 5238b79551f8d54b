"""Bounds on what an archive may unpack to: an archive of a megabyte can be made that fills any memory or disk.

They grow with the archive's own size, so that no honest one comes near them: pictures are compressed already.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import SpooledTemporaryFile
from typing import IO

from bfr_models.errors import UsageError

MAX_FILE_BYTES = 1024 * 2**20  # of one picture
MAX_SIDECAR_BYTES = 2**20
MAX_HEADER_BYTES = 2**20  # of all that a tar says of one member: long names, extended attributes, maps of holes
MAX_NAME = 4096  # characters of a path, as Linux has it
_TEXTS_IN_MEMORY = 16 * 2**20
CHUNK = 2**20  # bytes of a member that are asked for at once
_GZIP = b"\x1f\x8b"


class ArchiveTooLargeError(UsageError):
    """The archive unpacks to more than its size can explain."""


class Budget:
    """How much an archive of this size may still unpack."""

    def __init__(self, archive_bytes: int) -> None:
        self._members = 10_000 + archive_bytes // 64
        self._texts = 64 * 2**20 + 4 * archive_bytes
        self._bytes = 64 * 2**20 + 20 * archive_bytes
        self.end = 2**30 + 100 * archive_bytes
        """How far a tar may be read, with what is passed over."""

    def count_member(self, header_bytes: int) -> None:
        """A member is known from now on: what its header says stays in memory until the archive has been read."""
        self._members -= 1
        if self._members < 0:
            raise _too_large("files")
        self.count_text(header_bytes)

    def count_text(self, size: int) -> None:
        """So many bytes of names and sidecars are kept until the archive has been read."""
        self._texts -= size
        if self._texts < 0:
            raise _too_large("text in headers and sidecars")

    def count_bytes(self, size: int) -> None:
        """So many bytes of a picture have been unpacked."""
        self._bytes -= size
        if self._bytes < 0:
            raise _too_large("bytes")


class Texts:
    """Texts by the names of their files: a few in memory, more of them in a temporary file."""

    def __init__(self) -> None:
        self._file = SpooledTemporaryFile(_TEXTS_IN_MEMORY)  # noqa: SIM115 - it is gone with this object
        self._places: dict[str, tuple[int, int]] = {}

    def add(self, name: str, data: bytes) -> None:
        """Replaces one that was added under this name before, as a later member of a tar does."""
        self._places[name] = (self._file.seek(0, io.SEEK_END), len(data))
        self._file.write(data)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __getitem__(self, name: str) -> str:
        place, size = self._places[name]
        self._file.seek(place)
        return self._file.read(size).decode(errors="replace")


def _too_large(what: str) -> ArchiveTooLargeError:
    return ArchiveTooLargeError(
        f"expected an archive of pictures, found one that unpacks to far more {what} than its size can explain; if you "
        "trust it, extract it and pack the folder"
    )


class BoundedTar(io.RawIOBase):
    """The bytes of a tar, unpacked, of which only so many may be read until `allow` is called again.

    tarfile reads a header as long as the header itself says, and holds it in memory.
    """

    def __init__(self, opened: IO[bytes], end: int) -> None:
        head = opened.read(len(_GZIP))
        opened.seek(0)
        self._file: IO[bytes] | gzip.GzipFile = gzip.GzipFile(fileobj=opened) if head == _GZIP else opened
        self._end, self.left = end, MAX_HEADER_BYTES

    def allow(self, size: int) -> None:
        self.left = size

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= self.left:
            raise ArchiveTooLargeError(
                f"expected headers of at most {MAX_HEADER_BYTES} bytes in a tar, found one that is longer; if you "
                "trust the archive, extract it and pack the folder"
            )
        self.left -= size
        return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_SET and offset > self._end:
            raise _too_large("bytes")
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


@contextmanager
def open_tar(opened: IO[bytes], budget: Budget) -> Iterator[tuple[tarfile.TarFile, BoundedTar]]:
    """A tar or tar.gz, and its bytes, to be allowed before each access."""
    bounded = BoundedTar(opened, budget.end)
    with tarfile.open(fileobj=bounded, mode="r:") as archive:
        yield archive, bounded


def members(archive: tarfile.TarFile, bounded: BoundedTar, budget: Budget) -> Iterator[tarfile.TarInfo]:
    """The members of a tar, one by one, each within the bounds."""
    while True:
        bounded.allow(MAX_HEADER_BYTES)
        member = archive.next()
        if member is None:
            return
        member.pax_headers = {}  # a copy of the whole archive's, for each member
        if max(len(member.name), len(member.linkname)) > MAX_NAME:
            raise _too_large("text in names")
        budget.count_member(MAX_HEADER_BYTES - bounded.left)
        yield member


def size_of(opened: IO[bytes]) -> int:
    """The size of an open archive."""
    size = opened.seek(0, io.SEEK_END)
    opened.seek(0)
    return size
