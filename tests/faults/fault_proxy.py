"""A proxy in front of an S3 server that spoils some of the requests. Speaks HTTP/1.1, forwards one whole message at a
time and leaves every header alone (signatures cover them)."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

KINDS = ("busy", "reset_before", "reset_upload", "reset_after", "reset_download", "truncate", "slow")
_ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>{}</Message></Error>"
REFUSALS = {
    "busy": ("503 Slow Down", _ERROR.format("SlowDown", "Please reduce your request rate.")),
    "expired": ("400 Bad Request", _ERROR.format("ExpiredToken", "The provided token has expired.")),
}
"""Status and body of what the proxy answers by itself."""


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]


@dataclass
class _Message:
    head: bytes
    headers: dict[str, str]
    body: bytes = b""

    @property
    def start(self) -> list[str]:
        return self.head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")


def never(_: Request) -> str | None:
    """The choice of a proxy that spoils nothing."""
    return None


def some(seed: int, share: float, kinds: tuple[str, ...] = KINDS) -> Callable[[Request], str | None]:
    """Spoils a share of the requests, each in one of the ways."""
    rng = random.Random(seed)
    return lambda _: rng.choice(kinds) if rng.random() < share else None


@dataclass
class FaultProxy:
    """Within its block, `url` is that of the server with faults; `choose` says which, per request, and may change."""

    upstream: tuple[str, int]
    choose: Callable[[Request], str | None] = never
    requests: list[Request] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    bytes_up: Counter[str] = field(default_factory=Counter)  # of the bodies of requests, by path,
    bytes_down: Counter[str] = field(default_factory=Counter)  # and of those of answers
    slow_seconds: float = 0.5

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**20))
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._server.close()

    def count(self) -> Counter[str]:
        """Requests so far by method."""
        return Counter(request.method for request in self.requests)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while message := await _read(reader, asking=writer):
                method, path = message.start[:2]
                request = Request(method, path, message.headers)
                self.requests.append(request)
                self.bytes_up[path] += len(message.body)
                fault = self.choose(request)
                if fault:
                    self.faults[fault] += 1
                if not await self._answer(message, method, fault, writer):
                    break
        with contextlib.suppress(OSError):
            writer.close()

    async def _answer(self, message: _Message, method: str, fault: str | None, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection stays open."""
        if fault in REFUSALS:
            status, body = REFUSALS[fault]
            head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write((head + ("" if method == "HEAD" else body)).encode())
            await writer.drain()
            return True
        if fault == "reset_upload" and message.body:
            await self._send_half(message)
        if fault in ("reset_before", "reset_upload"):
            return _reset(writer)
        if fault == "slow":
            await asyncio.sleep(self.slow_seconds)
        if fault == "unconditional":
            message.head = _without(message.head, b"if-none-match")
        answer = await self._forward(message, method)
        self.bytes_down[message.start[1]] += len(answer.body)
        if fault == "reset_after":
            return _reset(writer)
        writer.write(answer.head + b"\r\n\r\n")
        cut = fault in ("truncate", "reset_download") and len(answer.body) > 1
        writer.write(answer.body[: len(answer.body) // 2] if cut else answer.body)
        await writer.drain()
        return _reset(writer) if cut and fault == "reset_download" else not cut

    async def _send_half(self, message: _Message) -> None:
        _, writer = await asyncio.open_connection(*self.upstream)
        writer.write(message.head + b"\r\n\r\n" + message.body[: len(message.body) // 2])
        await writer.drain()
        _reset(writer)

    async def _forward(self, message: _Message, method: str) -> _Message:
        reader, writer = await asyncio.open_connection(*self.upstream, limit=2**20)
        try:
            writer.write(message.head + b"\r\n\r\n" + message.body)
            await writer.drain()
            answer = await _read(reader, bodiless=method == "HEAD")
            while answer and answer.start[1] == "100":
                answer = await _read(reader, bodiless=method == "HEAD")
            assert answer, "the server behind the proxy closed the connection"
            return answer
        finally:
            writer.close()


async def _read(
    reader: asyncio.StreamReader, bodiless: bool = False, asking: asyncio.StreamWriter | None = None
) -> _Message | None:
    """The next whole message; None at the end. A body in chunks is kept as it came. Who is `asking` for leave to send
    its body is given it."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n"))[:-4]
    except asyncio.IncompleteReadError:
        return None
    lines = [line.decode("latin-1").partition(":") for line in head.split(b"\r\n")[1:]]
    headers = {name.strip().lower(): value.strip() for name, _, value in lines}
    message = _Message(head, headers)
    if asking and "expect" in headers:
        asking.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        message.head = _without(head, b"expect")
    status = message.start[1]
    if bodiless or status in ("100", "204", "304"):
        return message
    if "chunked" in headers.get("transfer-encoding", ""):
        while True:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            message.body += line + await reader.readexactly(size + 2)
            if not size:
                return message
    message.body = await reader.readexactly(int(headers.get("content-length", 0)))
    return message


def _without(head: bytes, name: bytes) -> bytes:
    return b"\r\n".join(line for line in head.split(b"\r\n") if not line.lower().startswith(name + b":"))


def _reset(writer: asyncio.StreamWriter) -> bool:
    """Cuts the connection so that the other side sees a reset and not an end."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False
