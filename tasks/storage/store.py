"""A root URL and the few operations that this project uses below it.

Everything that reads or writes goes through a `Store`, so that these promises hold on every kind of storage:

* a file exists whole or not at all: its bytes are built in memory and put in one request, never streamed into an open
  remote file (when a writer dies, fsspec publishes what it had written so far);
* `create` has exactly one winner among racing processes, by a hard link or by `If-None-Match: *` (RFC 9110, 13.1.2).
  `memory://`, and stores without conditional puts, check and then put, which is safe for a single writer only
  (`runs/single_writer` makes sure of one);
* transient errors are retried (`retry`), all others raise at once;
* no answer comes from a listing cache, so that what another machine has just written is seen.
"""

from __future__ import annotations

import io
import os
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, cast

from tasks.storage import local_disk
from tasks.storage.conditional_put import put_if_none_match
from tasks.storage.file_lock import node_lock
from tasks.storage.filesystem import KEYED, connect, protocols
from tasks.storage.http_errors import http_status
from tasks.storage.redaction import redact
from tasks.storage.refusals import require_bucket
from tasks.storage.retry import RetryingFile, with_retries
from tasks.storage.web_files import PROTOCOLS, copy_unless_in_parts

MAX_RECORD = 64 * 2**20
"""Bytes that `create` takes. From 100 MiB on s3fs uploads in parts, for which stores may ignore the condition."""

PARALLEL_READS = 16
"""Small reads at the same time. A store takes tens of milliseconds for each, however small, and runs have many."""


@dataclass(frozen=True)
class FileVersion:
    """A file as it was when it was listed; `version` changes when its bytes do."""

    path: str
    size: int
    version: str

    @property
    def name(self) -> str:
        """The path without the query of a signed link, for row ids and messages."""
        path, ending, _ = self.path.partition(".parquet?")
        return path + ending.rstrip("?")


FileVersions = list[FileVersion]


@dataclass(frozen=True)
class Leftover:
    """A file that may be removed or, with an `upload_id`, a multipart upload that was never completed."""

    path: str
    size: int
    made: datetime  # by the store's clock
    upload_id: str | None = None


Leftovers = list[Leftover]


class Store:
    """A folder, local or in an object store. Paths are relative to it, with `/` on every system.

    Methods raise the usual `OSError`s (`FileNotFoundError`, `PermissionError`, ...). A store is pickled as its URL, so
    that each process opens its own connection.
    """

    def __init__(self, url: str) -> None:
        self._fs, self._root = connect(url)
        self._local = "file" in protocols(self._fs)
        self._keyed = any(name in KEYED for name in protocols(self._fs))
        self._url = self._root if self._local else url.rstrip("/")
        # Whether the store has conditional puts; None: `runs/single_writer` has not found out yet.
        self.conditional: bool | None = None

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return Store, (self._url,)

    def __repr__(self) -> str:
        return f"Store({redact(self._url)!r})"

    def __str__(self) -> str:
        """The address for messages, without secrets."""
        return redact(self._url)

    def url(self, path: str = "") -> str:
        """The address of a file for other programs: an absolute path or a URL."""
        return f"{self._url}/{path}" if path else self._url

    def require_writable(self) -> None:
        """UsageError, before any work, if it is known that nothing can be written here: a folder that may not be, an S3
        bucket that does not exist or may not be listed."""
        if self._local:
            local_disk.require_writable(self._root)
        elif "s3" in protocols(self._fs):
            require_bucket(self._fs, self._root)

    def sub(self, path: str) -> Store:
        """A folder of this store as a store, over the same connection."""
        inner = object.__new__(Store)
        inner._fs, inner._local, inner.conditional = self._fs, self._local, self.conditional
        inner._keyed = self._keyed
        inner._root, inner._url = self._full(path), self.url(path)
        return inner

    def read(self, path: str) -> bytes:
        """All bytes of a file."""
        if self._local:
            return with_retries(local_disk.read_file, self._full(path))
        return cast(bytes, with_retries(self._fs.cat_file, self._full(path)))

    def write(self, path: str, data: bytes, *, private: bool = False) -> None:
        """Puts a whole file, replacing an existing one; on a local disk nobody else can read a private one."""
        if self._local:
            local_disk.replace_file(self._full(path), data, private=private)
        else:
            with_retries(self._fs.pipe_file, self._full(path), data)

    def create(self, path: str, data: bytes) -> bool:
        """Puts a file unless it exists. True: this call created it. False: it exists.

        If the response to a put is lost, the retry finds our own file and returns False: a caller that must know
        which it was writes a token into the file and reads it back. ValueError above `MAX_RECORD` bytes.
        """
        if len(data) > MAX_RECORD:
            raise ValueError(f"expected a record of at most {MAX_RECORD} bytes, got {len(data)} for {path}")
        if self._local:
            return local_disk.create_file(self._full(path), data)
        if self.conditional is False:
            return not self.exists(path) and with_retries(self._fs.pipe_file, self._full(path), data) is None
        return put_if_none_match(self._fs, self._full(path), data)

    def replace(self, path: str, data: bytes, version: str | None) -> bool:
        """Puts a file if it is still at this version (None: if it does not exist). False: it has changed since.

        Atomic on one machine's disks and on S3-compatible stores with `If-Match`; others check and then put. No two
        puts may have the same bytes: after a lost response they are how our own put is recognised.
        """
        if version is None:
            return self.create(path, data) or self.read(path) == data
        if self.conditional is not False and "s3" in protocols(self._fs):
            return self._put_if_match(path, data, version)
        with node_lock(Path(f"{self._full(path)}.lock"), on_wait=lambda: None) if self._local else nullcontext():
            if self.info(path).version != version:
                return False
            self.write(path, data)
            return True

    def exists(self, path: str) -> bool:
        """Whether the file (or folder) exists now. An error is raised, never taken for a no."""
        try:
            with_retries(self._fs.info, self._full(path))
        except FileNotFoundError:
            return False
        return True

    def info(self, path: str) -> FileVersion:
        """Size and version of one file."""
        return self._version(path, with_retries(self._fs.info, self._full(path)))

    def list(self, prefix: str = "") -> list[str]:
        """The files in a folder and below it, sorted; none if there is no such folder."""
        return sorted(self._find(prefix))

    def versions(self, prefix: str = "", *, follow_links: bool = True) -> FileVersions:
        """As `list`, with sizes and versions, at no further request; of links, `local_disk.list_files` says more."""
        return [self._version(path, found) for path, found in sorted(self._find(prefix, follow_links).items())]

    def leads_out(self, path: str) -> bool:
        """Whether a path leads out of this folder, which only links on a local disk do."""
        return self._local and local_disk.leads_out(self._root, self._full(path))

    def glob(self, pattern: str) -> FileVersions:
        """The files that match a pattern (`*`, `?`, `[...]`, `**`), sorted."""
        found = with_retries(self._fs.glob, f"{self._root}/{pattern}", detail=True)
        files = {self._relative(path): info for path, info in found.items() if info["type"] == "file"}
        return [self._version(path, info) for path, info in sorted(files.items())]

    def delete(self, path: str) -> None:
        """Removes a file; it may be gone already."""
        with suppress(FileNotFoundError):
            with_retries(self._fs.rm_file, self._full(path))

    def leftovers(self, prefix: str) -> Leftovers:
        """The files in a folder and below it, with their age, by one listing."""
        return [self._leftover(path, found) for path, found in sorted(self._find(prefix).items())]

    def temporary_files(self) -> Leftovers:
        """Temporary files of killed writers on a local disk; other stores have none."""
        return [self._leftover(path, {}) for path in local_disk.temporary_files(self._root)] if self._local else []

    def uploads(self) -> Leftovers:
        """S3 multipart uploads below this folder that were neither completed nor aborted. No listing shows them."""
        if "s3" not in protocols(self._fs):
            return []
        bucket, _, key = self._root.partition("/")
        found: Leftovers = []
        where: dict[str, str] = {}  # the markers of the next page
        while True:
            page = self._fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=f"{key}/" if key else "", **where)
            for upload in page.get("Uploads", []):
                path = self._relative(f"{bucket}/{upload['Key']}")
                found.append(Leftover(path, 0, upload["Initiated"], upload["UploadId"]))
            if not page.get("IsTruncated"):
                return found
            where = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    def remove(self, leftover: Leftover) -> None:
        """Removes a leftover; it may be gone already."""
        if leftover.upload_id is None:
            self.delete(leftover.path)
            return
        bucket, _, key = self._full(leftover.path).partition("/")
        with suppress(FileNotFoundError):
            self._fs.call_s3("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=leftover.upload_id)

    def open_input(self, path: str, *, sequential: bool = False) -> BinaryIO:
        """A seekable file. Each read is one request for exactly that range, as suits Parquet; `sequential` reads ahead
        instead, as suits archives."""
        full = self._full(path)
        if self._local:
            return local_disk.open_file(full)
        if "memory" in protocols(self._fs):
            return io.BytesIO(self.read(path))  # fsspec's memory files share one position among all readers
        if set(protocols(self._fs)) & set(PROTOCOLS) and (copy := copy_unless_in_parts(self._fs, full)):
            return copy
        if sequential:
            return cast(BinaryIO, self._fs.open(full, "rb", cache_type="readahead", block_size=8 * 2**20))
        opened = with_retries(self._fs.open, full, "rb", cache_type="none")
        return cast(BinaryIO, RetryingFile(opened, opened.size)) if opened.size is not None else opened

    def _full(self, path: str) -> str:
        if (path.startswith("/") and not self._keyed) or ".." in path.split("/"):
            raise ValueError(f"expected a path inside {self!r}, got {path!r}")
        return f"{self._root}/{path}".rstrip("/") if path else self._root

    def _relative(self, full: str) -> str:
        return full[len(self._root) :].removeprefix("/")

    def _find(self, prefix: str, follow_links: bool = True) -> dict[str, dict[str, Any]]:
        full = self._full(prefix)
        try:
            if self._local:
                names = local_disk.list_files(full, follow_links=follow_links)
                return {self._relative(f"{full}/{path}").rstrip("/"): {} for path in names}
            found = self._found_remotely(full)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        # A key that ends in "/" is a folder marker, as the consoles of S3 and GCS create them.
        files = {path: info for path, info in found.items() if info["type"] == "file" and path[-1:] != "/"}
        return {self._relative(path): info for path, info in files.items()}

    def _found_remotely(self, full: str) -> dict[str, dict[str, Any]]:
        bucket, _, key = full.partition("/")
        if not self._keyed or not key.startswith("/"):
            return cast(dict[str, dict[str, Any]], with_retries(self._fs.find, full, detail=True))
        # s3fs lists a folder whose key starts with a slash as if it did not.
        found = with_retries(self._fs.find, bucket, prefix=f"{key}/", detail=True)
        return found or {full: with_retries(self._fs.info, full)}

    def _version(self, path: str, found: dict[str, Any]) -> FileVersion:
        if self._local:
            full = self._full(path)
            stat = os.stat(full) if os.path.exists(full) else os.lstat(full)  # a dangling link is there, to be named
            return FileVersion(path, stat.st_size, f"{stat.st_size}-{stat.st_mtime_ns}")
        # "W/" marks a weak ETag. A local file, and a store without ETags, is known by size and time instead.
        etag = str(found.get("ETag") or found.get("etag") or "").removeprefix("W/").strip('"')
        size, made = int(found["size"] or 0), found.get("created", 0)
        made = made.timestamp() if isinstance(made, datetime) else made  # memory:// gives a float or a datetime
        return FileVersion(path, size, etag or f"{size}-{made}")

    def _leftover(self, path: str, found: dict[str, Any]) -> Leftover:
        if self._local:
            stat = os.stat(self._full(path))
            return Leftover(path, stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC))
        made = found.get("LastModified") or found.get("mtime") or found.get("created") or found.get("last_modified")
        made = made if isinstance(made, datetime) else datetime.now(UTC)  # of unknown age: too young to be removed
        return Leftover(path, int(found["size"] or 0), made if made.tzinfo else made.replace(tzinfo=UTC))

    def _put_if_match(self, path: str, data: bytes, version: str) -> bool:
        for etag in (f'"{version}"', version):  # quoted as RFC 9110 has it; Ceph RGW compares it without quotes
            try:
                with_retries(self._fs.pipe_file, self._full(path), data, IfMatch=etag)
                return True
            except OSError as error:
                if http_status(error) not in (404, 409, 412):
                    raise
            if self.read(path) == data:  # our own put: only its response was lost
                return True
            if self.info(path).version != version:
                break
        return False


@lru_cache(maxsize=64)
def shared_store(url: str) -> Store:
    """A store shared within this process: a new connection for every request would be slow, and they would pile up."""
    return Store(url)
