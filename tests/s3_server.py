"""An S3 server in this process: moto, whose conditional puts are made as atomic as those of S3."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from moto.s3.responses import S3Response
from moto.server import ThreadedMotoServer

_put_object, _lock = S3Response.put_object, threading.Lock()


def _put_object_alone(self: S3Response) -> Any:
    """Else two requests may both find the condition met before either of them writes."""
    with _lock:
        return _put_object(self)


@contextmanager
def s3_server() -> Iterator[tuple[str, int]]:
    """Its host and port. All servers of a process share their buckets."""
    server = ThreadedMotoServer(port=0, verbose=False)
    with patch.object(S3Response, "put_object", _put_object_alone):
        server.start()
        try:
            yield server.get_host_and_port()
        finally:
            server.stop()  # its thread is no daemon: pytest would wait for it for ever
