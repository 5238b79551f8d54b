"""The metadata services of AWS and Google, limited to spot termination notices, and AWS's for the keys of a role."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "a-token-of-imdsv2"
ACTION = '{"action": "terminate", "time": "2026-11-21T12:00:00Z"}'


@dataclass
class Metadata:
    """`address` is host:port; `taken` gives the notice; `ill` answers 503. `answers` is how many it has given."""

    address: str
    taken: bool = False
    ill: bool = False
    answers: int = 0

    @property
    def environment(self) -> dict[str, str]:
        return {"AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://{self.address}/", "GCE_METADATA_HOST": self.address}


@contextmanager
def metadata_server() -> Iterator[Metadata]:
    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            asked = self.path == "/latest/api/token" and self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
            self._answer(200 if asked else 400, TOKEN)

        def do_GET(self) -> None:
            if self.path == "/latest/meta-data/spot/instance-action":
                allowed = self.headers["X-aws-ec2-metadata-token"] == TOKEN
                self._answer((200 if metadata.taken else 404) if allowed else 401, ACTION)
            else:
                allowed = self.headers["Metadata-Flavor"] == "Google"
                known = self.path == "/computeMetadata/v1/instance/preempted"
                self._answer((200 if known else 404) if allowed else 403, "TRUE" if metadata.taken else "FALSE")

        def _answer(self, status: int, body: str) -> None:
            self.send_response(503 if metadata.ill else status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())
            metadata.answers += 1

        def log_message(self, *_: Any) -> None: ...

    with _serving(Handler) as address:
        metadata = Metadata(address)
        yield metadata


@dataclass
class Role:
    """`url` gives keys of a minute, with another token each time."""

    url: str
    given: int = 0

    def is_over(self, token: str) -> bool:
        """Whether some twenty tokens have been given since: requests are signed a moment before they are sent."""
        return int(token) < self.given - 20


@contextmanager
def keys_of_a_role() -> Iterator[Role]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            role.given += 1
            keys = {"AccessKeyId": "role", "SecretAccessKey": "role-secret", "Token": str(role.given)}
            keys["Expiration"] = (datetime.now(UTC) + timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
            body = json.dumps(keys).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    with _serving(Handler) as address:
        role = Role(f"http://{address}/keys")
        yield role


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Its host and port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
