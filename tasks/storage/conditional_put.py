"""A create-only put on an object store, by `If-None-Match: *` (RFC 9110, 13.1.2)."""

from __future__ import annotations

import random
import time
from typing import Any

from tasks.storage.http_errors import http_status
from tasks.storage.retry import with_retries

_CONFLICT_TRIES = 6  # with waits of up to 3 s in all between them


def put_if_none_match(fs: Any, path: str, data: bytes) -> bool:
    """Puts a file unless it exists. False: it exists. NotImplementedError where the store has no such condition."""
    for attempt in range(_CONFLICT_TRIES):
        try:
            with_retries(fs.pipe_file, path, data, mode="create")
            return True
        except OSError as error:
            status = http_status(error)
            if status == 412:
                return False
            if status == 501:
                raise NotImplementedError("this store knows no conditional puts") from error
            if status != 409 or attempt + 1 == _CONFLICT_TRIES:
                raise
            # 409 ConditionalRequestConflict: another conditional put is in flight and may yet fail, so ask again.
            time.sleep(random.uniform(0, 0.1 * 2**attempt))
    raise AssertionError("the last try returns or raises")
