"""Where a file comes from: a web server, or a store that fsspec knows. Both can start in the middle of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Protocol

import httpx

from bfr_models.errors import BfrError
from tasks.storage.redaction import redact
from tasks.storage.store import Store

CHUNK = 2**20
TIMEOUT = httpx.Timeout(60, connect=10)

_WAIT_AND_SEE = {408, 425, 429}  # and all 5xx


class TransferError(Exception):
    """The bytes stopped coming, or did not start to; asking again may help. `start_over`: what came is of no use."""

    def __init__(self, found: str, *, start_over: bool = False) -> None:
        super().__init__(found)
        self.start_over = start_over


@dataclass(frozen=True)
class Stream:
    """Bytes that are coming: from `start` on, of a file of `total` bytes. `version` changes when the file does."""

    start: int
    total: int | None
    version: str | None
    chunks: Iterator[bytes]


class Origin(Protocol):
    """One file somewhere."""

    url: str  # for people

    def open(self, offset: int, version: str | None) -> AbstractContextManager[Stream]:
        """The bytes from `offset` on if the file is still of this version, else from 0."""


class WebOrigin:
    """A file of a web server, by HTTP ranges."""

    def __init__(self, url: str) -> None:
        self.url = redact(url)
        self._url = url

    @contextmanager
    def open(self, offset: int, version: str | None) -> Iterator[Stream]:
        headers = {"Accept-Encoding": "identity"}
        if offset and version:
            headers |= {"Range": f"bytes={offset}-", "If-Range": version}
        try:
            with httpx.stream("GET", self._url, headers=headers, follow_redirects=True, timeout=TIMEOUT) as response:
                self._check(response)
                yield _stream(response, offset, version)
        except httpx.TransportError as error:
            raise TransferError(f"{type(error).__name__}: {error}") from error
        except (httpx.TooManyRedirects, httpx.InvalidURL) as error:
            raise BfrError(f"expected a file at {self.url}, found {error}; {_ELSEWHERE}") from error

    def _check(self, response: httpx.Response) -> None:
        status = response.status_code
        if self._url.startswith("https:") and response.url.scheme != "https":
            raise BfrError(f"expected {self.url} over TLS, found a redirection to plain {response.url.scheme}")
        if status == 416:
            raise TransferError("HTTP 416: the file has become shorter", start_over=True)
        if status in _WAIT_AND_SEE or status >= 500:
            raise TransferError(f"HTTP {status}")
        if status not in {200, 206}:
            raise BfrError(f"expected a file at {self.url}, found HTTP {status}; {_ELSEWHERE}")


class StoreOrigin:
    """A file of a mirror: a folder on any storage."""

    def __init__(self, mirror: str, path: str) -> None:
        self.url = f"{redact(mirror.rstrip('/'))}/{path}"
        self._store, self._path = Store(mirror), path

    @contextmanager
    def open(self, offset: int, version: str | None) -> Iterator[Stream]:
        with self._trouble():
            found = self._store.info(self._path)
            file = self._store.open_input(self._path, sequential=True)
        with file:
            start = offset if found.version == version else 0
            yield Stream(start, found.size, found.version, self._read(file, start))

    def _read(self, file: BinaryIO, start: int) -> Iterator[bytes]:
        with self._trouble():
            file.seek(start)
            while chunk := file.read(CHUNK):
                yield chunk

    @contextmanager
    def _trouble(self) -> Iterator[None]:
        """Each driver has errors of its own; a file that is not there, or is not ours, will not come by itself."""
        try:
            yield
        except (FileNotFoundError, PermissionError) as error:
            raise BfrError(f"expected a file at {self.url}, found {error!r}; {_ELSEWHERE}") from error
        except Exception as error:
            raise TransferError(f"{type(error).__name__}: {error}") from error


_ELSEWHERE = (
    "give another place with --mirror URL, or get the file by hand and use `bfr weights import`; a proxy is taken "
    "from HTTPS_PROXY"
)


def _stream(response: httpx.Response, offset: int, version: str | None) -> Stream:
    headers = response.headers
    etag = headers.get("ETag", "")
    found = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")
    if response.status_code == 200:
        length = headers.get("Content-Length", "")
        return Stream(0, int(length) if length.isdigit() else None, found, response.iter_raw())
    given = headers.get("Content-Range", "")
    part = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", given)
    if part is None or int(part[1]) != offset or found not in {None, version}:
        raise TransferError(
            f"expected bytes from {offset} on of the version {version}, found {given!r} of {found}", start_over=True
        )
    return Stream(offset, None if part[3] == "*" else int(part[3]), version, response.iter_raw())
