"""Makes several pictures at a time, as many as may be in memory, and gives them back in their order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from bfr_models.errors import RowError
from tasks.export.make import Made, make
from tasks.export.pictures import Picture
from tasks.export.rows import ExportRun
from tasks.images.codec import count_pixels

THREADS = min(4, os.cpu_count() or 1)
MAX_PIXELS = 32_000_000
"""Of all pictures in the making, by their headers, unless one alone has more: each pixel takes about 20 bytes."""

Result = Made | RowError | None
"""None for a picture that is not wanted."""


def made_in_order(run: ExportRun, pictures: Iterable[tuple[Picture, bool]]) -> Iterator[tuple[Picture, Result]]:
    """Each picture with what was made of it, or why nothing could be; the flag says whether it is wanted."""
    waiting = deque[tuple[Picture, Future[Result], int]]()
    with ThreadPoolExecutor(THREADS, thread_name_prefix="export") as threads:
        for picture, wanted in pictures:
            pixels = sum(count_pixels(row.original) for row in picture.rows) if wanted else 0
            while waiting and (len(waiting) > 2 * THREADS or pixels + sum(one[2] for one in waiting) > MAX_PIXELS):
                done, future, _ = waiting.popleft()
                yield done, future.result()
            waiting.append((picture, threads.submit(_make, run, picture, wanted=wanted), pixels))
        for picture, future, _ in waiting:
            yield picture, future.result()


def _make(run: ExportRun, picture: Picture, *, wanted: bool) -> Result:
    try:
        return make(run, picture) if wanted else None
    except RowError as error:
        return error
