"""Downloads one file to the local disk: resumable, bounded in size, and hashed while it arrives.

The bytes so far are kept beside the destination with a note of the file's version. The next attempt, even by another
process, asks for the rest, and gets it only if the origin still has that version.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bfr_models.errors import BfrError
from tasks.storage.local_disk import replace_file
from tasks.weights.origins import CHUNK, Origin, TransferError

TRIES = 6  # in a row that bring no new bytes
BACKOFF_SECONDS = 0.5  # after the first of them, doubled with each further one
MAX_UNKNOWN_BYTES = 4 * 2**30  # of a file of unknown size


@dataclass(frozen=True)
class Expected:
    """What is known about a file beforehand; None for unknown."""

    size: int | None
    sha256: str | None


class PartialFile:
    """The part of a file that has arrived. It outlives its process."""

    def __init__(self, path: Path, origin: str) -> None:
        self._path, self._note = path, path.with_name(f"{path.name}.json")
        self._origin = origin
        self.version = self._recorded_version()
        self._file = path.open("ab" if self.version else "wb")
        self.size = self._file.tell()
        self.resumed = self.size > 0
        self._hash = hashlib.sha256()
        with path.open("rb") as so_far:
            while chunk := so_far.read(CHUNK):
                self._hash.update(chunk)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def append(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._hash.update(chunk)
        self.size += len(chunk)

    def start_over(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self.size = 0
        self._hash = hashlib.sha256()

    def note(self, version: str | None) -> None:
        """Records the version that the bytes belong to; without one they cannot be resumed."""
        self.version = version
        record = {"origin": self._origin, "version": version}
        replace_file(str(self._note), json.dumps(record).encode())

    def close(self) -> None:
        """Ends a complete download: the note is removed, the file stays."""
        self._file.close()
        self._note.unlink(missing_ok=True)

    def discard(self) -> None:
        self.close()
        self._path.unlink(missing_ok=True)

    def keep(self) -> None:
        """Ends an incomplete download: it stays for the next attempt if it can be resumed."""
        if self.version and self.size:
            self._file.close()
        else:
            self.discard()

    def _recorded_version(self) -> str | None:
        with suppress(OSError, ValueError, KeyError):
            record = json.loads(self._note.read_text())
            if record["origin"] == self._origin:
                return record["version"]
        return None


def download(origin: Origin, path: Path, expected: Expected, on_progress: Callable[[int], None]) -> str:
    """Downloads the file to `path` and returns its sha256, checked against the expected one if that is known.

    BfrError if the origin has another file than expected (nothing is kept), or if `TRIES` attempts in a row bring
    nothing (what has arrived is kept, and the next call resumes it).
    """
    partial = PartialFile(path, origin.url)
    try:
        _receive_with_retries(origin, partial, expected, on_progress)
        if partial.resumed and expected.sha256 not in {None, partial.sha256}:
            partial.start_over()  # the parts may be of different versions: once more, in one piece
            _receive_with_retries(origin, partial, expected, on_progress)
        if expected.sha256 not in {None, partial.sha256}:
            raise _WrongFileError(f"sha256 {expected.sha256}", partial.sha256, origin)
    except _WrongFileError:
        partial.discard()
        raise
    except BaseException:
        partial.keep()
        raise
    partial.close()
    return partial.sha256


class _WrongFileError(BfrError):
    def __init__(self, expected: str, found: str, origin: Origin) -> None:
        super().__init__(
            f"expected a file of {expected} at {origin.url}, found {found}; it is not the published file and was "
            "not kept; name another origin with --mirror URL"
        )


def _receive_with_retries(
    origin: Origin, partial: PartialFile, expected: Expected, on_progress: Callable[[int], None]
) -> None:
    """Receives until the file is whole, with pauses that grow as long as no new bytes arrive."""
    failures, furthest = 0, partial.size
    while expected.size is None or partial.size != expected.size:
        try:
            _receive(origin, partial, expected, on_progress)
            break
        except TransferError as error:
            failures = failures + 1 if partial.size <= furthest else 0
            furthest = max(furthest, partial.size)
            if error.start_over:
                partial.start_over()
            if failures == TRIES:
                raise BfrError(
                    f"expected all of {origin.url}, found {partial.size} bytes and then, {TRIES} times in a row, "
                    f"{error}; the same command resumes from there; --mirror URL names another origin, and "
                    "`bfr weights import` takes files that were downloaded by hand"
                ) from error
            pause = min(60.0, BACKOFF_SECONDS * 2**failures) * random.uniform(0.5, 1)
            print(f"{origin.url}: {error}; trying again in {pause:.1f} s", file=sys.stderr, flush=True)
            time.sleep(pause)


def _receive(origin: Origin, partial: PartialFile, expected: Expected, on_progress: Callable[[int], None]) -> None:
    """One attempt. TransferError if the file is not whole after it."""
    with origin.open(partial.size, partial.version) as stream:
        if expected.size is not None and stream.total not in {None, expected.size}:
            raise _WrongFileError(f"{expected.size} bytes", f"{stream.total}", origin)
        if stream.start != partial.size:  # the origin sends the whole file: it has another version, or no ranges
            partial.start_over()
        partial.resumed |= stream.start > 0
        if stream.version != partial.version:
            partial.note(stream.version)
        limit = expected.size or stream.total or MAX_UNKNOWN_BYTES
        for chunk in stream.chunks:
            if partial.size + len(chunk) > limit:
                raise _WrongFileError(f"{limit} bytes", "more", origin)
            partial.append(chunk)
            on_progress(partial.size)
    wanted = expected.size or stream.total
    if wanted is not None and partial.size < wanted:
        raise TransferError(f"the end after {partial.size} of {wanted} bytes")
