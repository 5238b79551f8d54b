"""A local web server with one file that misbehaves as the test says."""

from __future__ import annotations

import hashlib
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CONTENT = random.Random(0).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HALF = 150_000

Misbehaviour = Callable[["Server", BaseHTTPRequestHandler], None]


class Server:
    """Serves `content` at every path, with ranges; each misbehaviour in `script` takes one request first."""

    def __init__(self) -> None:
        self.url = ""
        self.content, self.etag = CONTENT, '"v1"'
        self.script: list[Misbehaviour] = []
        self.requests: list[tuple[str, str | None, str | None]] = []  # path, Range, If-Range

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.requests.append((request.path, request.headers["Range"], request.headers["If-Range"]))
        (self.script.pop(0) if self.script else behave)(self, request)

    @property
    def ranges(self) -> list[str | None]:
        return [asked for _, asked, _ in self.requests]


def reply(request: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: object) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), str(value))
    request.end_headers()
    request.wfile.write(body)


def behave(server: Server, request: BaseHTTPRequestHandler) -> None:
    asked, total = re.fullmatch(r"bytes=(\d+)-", request.headers["Range"] or ""), len(server.content)
    if asked is None or request.headers["If-Range"] != server.etag:
        return reply(request, 200, server.content, Content_Length=total, ETag=server.etag)
    start = int(asked[1])
    where = f"bytes {start}-{total - 1}/{total}"
    return reply(
        request, 206, server.content[start:], Content_Length=total - start, Content_Range=where, ETag=server.etag
    )


def cut_half_way(server: Server, request: BaseHTTPRequestHandler) -> None:
    reply(request, 200, server.content[:HALF], Content_Length=len(server.content), ETag=server.etag)


def ignore_range(server: Server, request: BaseHTTPRequestHandler) -> None:
    reply(request, 200, server.content, Content_Length=len(server.content), ETag=server.etag)


def status(code: int) -> Misbehaviour:
    return lambda _, request: reply(request, code, b"no", Content_Length=2)


def redirect(server: Server, request: BaseHTTPRequestHandler) -> None:
    reply(request, 302, Location=f"{server.url}/elsewhere", Content_Length=0)


def wrong_range(server: Server, request: BaseHTTPRequestHandler) -> None:
    where, body = f"bytes 7-{len(server.content) - 1}/{len(server.content)}", server.content[7:]
    reply(request, 206, body, Content_Length=len(body), Content_Range=where, ETag=server.etag)


def range_of_another_version(server: Server, request: BaseHTTPRequestHandler) -> None:
    where, body = f"bytes {HALF}-{len(server.content) - 1}/{len(server.content)}", b"x" * HALF
    reply(request, 206, body, Content_Length=HALF, Content_Range=where, ETag='"v2"')


def wrong_bytes_in_range(server: Server, request: BaseHTTPRequestHandler) -> None:
    where = f"bytes {HALF}-{len(server.content) - 1}/{len(server.content)}"
    reply(request, 206, b"x" * HALF, Content_Length=HALF, Content_Range=where, ETag=server.etag)


def announce(length: int) -> Misbehaviour:
    return lambda server, request: reply(request, 200, server.content, Content_Length=length, ETag=server.etag)


def endless(_: Server, request: BaseHTTPRequestHandler) -> None:
    reply(request, 200)
    while True:  # until the client has had enough
        request.wfile.write(bytes(2**16))


def hang_half_way(server: Server, request: BaseHTTPRequestHandler) -> None:
    cut_half_way(server, request)
    time.sleep(30)


def slow(server: Server, request: BaseHTTPRequestHandler) -> None:
    time.sleep(1.5)
    behave(server, request)


@contextmanager
def serving() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # http.server's name
            state.answer(self)

        def log_message(self, *_: object) -> None: ...

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *_: object) -> None: ...

    with Quiet(("127.0.0.1", 0), Handler) as http:
        state.url = f"http://127.0.0.1:{http.server_address[1]}"
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield state
        http.shutdown()
