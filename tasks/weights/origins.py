"""Where a file is downloaded from: a web server, or a store of fsspec. Both can start in the middle of the file."""

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

_TRANSIENT = {408, 425, 429}  # Request Timeout, Too Early, Too Many Requests; and all 5xx


class TransferError(Exception):
    """A transfer broke off or did not begin; a retry may help. `start_over`: the bytes so far are of no use."""

    def __init__(self, found: str, *, start_over: bool = False) -> None:
        super().__init__(found)
        self.start_over = start_over


@dataclass(frozen=True)
class Stream:
    """A transfer from byte `start` on, of a file of `total` bytes. `version` changes when the file does."""

    start: int
    total: int | None
    version: str | None
    chunks: Iterator[bytes]


class Origin(Protocol):
    """One file somewhere."""

    url: str  # for messages: redacted

    def open(self, offset: int, version: str | None) -> AbstractContextManager[Stream]:
        """The bytes from `offset` on if the file still has this version, otherwise from 0."""


class WebOrigin:
    """A file on a web server, by HTTP range requests."""

    def __init__(self, url: str) -> None:
        self.url = redact(url)
        self._url = url

    @contextmanager
    def open(self, offset: int, version: str | None) -> Iterator[Stream]:
        headers = {"Accept-Encoding": "identity"}  # offsets count the bytes of the file, not of a compressed body
        if offset and version:
            # If-Range (RFC 9110, 13.1.5): the rest if the version is still this one, otherwise all of the file.
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
            raise BfrError(f"expected {self.url} over TLS, found a redirect to plain {response.url.scheme}")
        if status == 416:
            raise TransferError("HTTP 416: the file has become shorter", start_over=True)
        if status in _TRANSIENT or status >= 500:
            raise TransferError(f"HTTP {status}")
        if status not in {200, 206}:
            raise BfrError(f"expected a file at {self.url}, found HTTP {status}; {_ELSEWHERE}")


class StoreOrigin:
    """A file of a mirror, which is a folder in any store."""

    def __init__(self, mirror: str, path: str) -> None:
        self.url = f"{redact(mirror.rstrip('/'))}/{path}"
        self._store, self._path = Store(mirror), path

    @contextmanager
    def open(self, offset: int, version: str | None) -> Iterator[Stream]:
        with self._as_transfer_errors():
            found = self._store.info(self._path)
            file = self._store.open_input(self._path, sequential=True)
        with file:
            start = offset if found.version == version else 0
            yield Stream(start, found.size, found.version, self._read(file, start))

    def _read(self, file: BinaryIO, start: int) -> Iterator[bytes]:
        with self._as_transfer_errors():
            file.seek(start)
            while chunk := file.read(CHUNK):
                yield chunk

    @contextmanager
    def _as_transfer_errors(self) -> Iterator[None]:
        """Turns a driver's errors into TransferError, but those that no retry can help into BfrError."""
        try:
            yield
        except (FileNotFoundError, PermissionError) as error:
            raise BfrError(f"expected a file at {self.url}, found {error!r}; {_ELSEWHERE}") from error
        except Exception as error:
            raise TransferError(f"{type(error).__name__}: {error}") from error


_ELSEWHERE = (
    "give another origin with --mirror URL, or download the file by hand and use `bfr weights import`; HTTPS_PROXY "
    "names a proxy"
)


def _stream(response: httpx.Response, offset: int, version: str | None) -> Stream:
    """The transfer that a 200 or 206 begins. TransferError for a 206 with other bytes than were asked for."""
    headers = response.headers
    etag = headers.get("ETag", "")
    # If-Range accepts no weak ETag.
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
