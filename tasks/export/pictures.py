"""The files that a run's rows came from: one row each, but the pages of a TIFF together are one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from tasks.export.rows import ExportRow, ExportRun
from tasks.export.tiff import count_pages
from tasks.storage.redaction import redact

_PAGE = re.compile(r"(?P<name>.*)#page=(?P<page>\d+)(?P<again>#\d+)?", re.DOTALL)
_EXTENSION = re.compile(
    r".*\.(jpe?g|jpe|jfif|png|webp|tiff?|bmp|gif|avif|hei[cf]|hif|jxl|jp2|j2k|jp[fx]|j2c|dng|cr[23]|nef|arw|raf|orf|rw2"
    r"|pef|srw|pdf|dcm)",
    re.IGNORECASE | re.DOTALL,
)
_EXTENSIONS = {
    b"\x89PNG": "png", b"\xff\xd8": "jpg", b"RIFF": "webp", b"II": "tif", b"MM": "tif", b"GIF8": "gif", b"BM": "bmp",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Picture:
    """A file of the source: the rows of its pages, in order, which are one row for nearly all files."""

    rows: list[ExportRow]

    @property
    def name(self) -> str:
        """The name that it came with: its path, or else its row's id with the extension of its format."""
        first = self.rows[0]
        if first.path:
            return redact(first.path) if "://" in first.path else first.path  # an address may hold a secret
        if _EXTENSION.fullmatch(first.id):
            return first.id
        start = first.original or first.restored or b""
        extension = next((name for magic, name in _EXTENSIONS.items() if start.startswith(magic)), "bin")
        return f"{first.id}.{extension}"

    @property
    def lost(self) -> str:
        """Why its own bytes are not to be had."""
        return next((row.lost or "no bytes" for row in self.rows if row.original is None), "")

    @cached_property
    def files(self) -> list[bytes]:
        """Its bytes: one file or, if it was packed by a version that took files apart, one for each page."""
        found = [row.original for row in self.rows if row.original is not None]
        return found[:1] if len(found) > 1 and count_pages(found[0]) == len(self.rows) else found


def pictures_of(run: ExportRun, number: int) -> Iterator[Picture]:
    """The pictures that begin in a shard; their last pages may be in the next one."""
    rows = run.rows(number)
    before = run.last_id(number - 1) if number else None
    first = next(rows, None)
    while first is not None and _follows(before, first):  # pages of a picture that began in an earlier shard
        before, first = first.id, next(rows, None)
    if first is None:
        return
    pages = [first]
    for row in rows:
        if not _follows(pages[-1].id, row):
            yield Picture(pages)
            pages = []
        pages.append(row)
    later = chain.from_iterable(run.rows(after) for after in range(number + 1, len(run.shards)))
    for row in later:
        if not _follows(pages[-1].id, row):
            break
        pages.append(row)
    yield Picture(pages)


def _follows(before: str | None, row: ExportRow) -> bool:
    """Whether a row is the next page of the TIFF that the row with the id `before` is a page of."""
    found = _PAGE.fullmatch(row.id)
    if before is None or found is None or int(found["page"]) < 2:
        return False
    name, page, again = found["name"], int(found["page"]), found["again"] or ""
    return before == (f"{name}{again}" if page == 2 else f"{name}#page={page - 1}{again}")
