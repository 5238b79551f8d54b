"""A weight file arrives whole and right, once per machine, or not at all: against a server that misbehaves."""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import httpx
import pytest

from bfr_models import weight_catalogue
from bfr_models.errors import BfrError, UsageError
from bfr_models.weight_catalogue import WeightEntry
from tasks import _download, _origins
from tasks.fetch_weights import fetch_weights

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


def hang(_: Server, request: BaseHTTPRequestHandler) -> None:
    time.sleep(1)


def hang_half_way(server: Server, request: BaseHTTPRequestHandler) -> None:
    cut_half_way(server, request)
    time.sleep(30)


def slow(server: Server, request: BaseHTTPRequestHandler) -> None:
    time.sleep(1.5)
    behave(server, request)


@pytest.fixture
def server() -> Iterator[Server]:
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


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BFR_WEIGHTS", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(_download, "BACKOFF_SECONDS", 0.001)
    monkeypatch.setattr(_origins, "TIMEOUT", httpx.Timeout(0.4))
    return tmp_path / "cache"


Fetch = Callable[..., dict[str, Any]]


@pytest.fixture
def fetch(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Fetch:
    """Fetches the one catalogued file, of which the keywords say what is known."""

    def run(*, consent: bool = True, mirror: str | None = None, trust: bool = False, **facts: object) -> dict[str, Any]:
        known = {"size": len(CONTENT), "sha256": SHA256, "non_commercial": False, **facts}
        entry = WeightEntry(
            "lib/net", "a net", f"{server.url}/v1/net.pth", licence="L", licence_url="https://l", **known
        )
        monkeypatch.setattr(weight_catalogue, "CATALOGUE", (entry,))
        return fetch_weights(["lib"], lambda _: consent, mirror=mirror, trust_on_first_use=trust)[0]

    return run


def files(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


WHOLE = ["lib-net.json", "lib-net.pth"]


def assert_whole(cache: Path) -> None:
    assert files(cache) == WHOLE
    assert (cache / "lib-net.pth").read_bytes() == CONTENT


def test_a_file_is_fetched_with_its_card_and_then_left_alone(server: Server, cache: Path, fetch: Fetch) -> None:
    fetched = fetch()
    assert_whole(cache)
    assert fetched["fetched"] and fetched["sha256"] == SHA256 and fetched["source"]["trust"] == "published sha256"
    assert not fetch()["fetched"]
    assert server.requests == [("/v1/net.pth", None, None)]


@pytest.mark.parametrize(
    ("script", "ranges"),
    [
        ([cut_half_way], [None, f"bytes={HALF}-"]),
        ([cut_half_way, status(503), status(503)], [None] + [f"bytes={HALF}-"] * 3),
        ([cut_half_way, ignore_range], [None, f"bytes={HALF}-"]),
        ([cut_half_way, wrong_range], [None, f"bytes={HALF}-", None]),
        ([cut_half_way, range_of_another_version], [None, f"bytes={HALF}-", None]),
        ([cut_half_way, wrong_bytes_in_range], [None, f"bytes={HALF}-", None]),
        ([cut_half_way, status(416)], [None, f"bytes={HALF}-", None]),
        ([cut_half_way, redirect], [None, f"bytes={HALF}-", f"bytes={HALF}-"]),
        ([status(503), status(503)], [None] * 3),
        ([status(429), hang], [None] * 3),
    ],
    ids=lambda value: None,
)
def test_what_will_pass_is_waited_out(
    server: Server, cache: Path, fetch: Fetch, script: list[Misbehaviour], ranges: list[str | None]
) -> None:
    server.script = script
    fetch()
    assert_whole(cache)
    assert server.ranges == ranges


def test_a_file_that_changes_half_way_is_not_mixed(server: Server, cache: Path, fetch: Fetch) -> None:
    def cut_and_change(state: Server, request: BaseHTTPRequestHandler) -> None:
        cut_half_way(state, request)
        state.content, state.etag = CONTENT[::-1], '"v2"'

    server.script = [cut_and_change]
    fetch(size=None, sha256=None, trust=True)
    assert (cache / "lib-net.pth").read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("answer", [status(404), status(403)])
def test_what_is_not_there_is_asked_for_once(server: Server, cache: Path, fetch: Fetch, answer: Misbehaviour) -> None:
    server.script = [answer]
    with pytest.raises(BfrError, match=r"expected a file at http.*/v1/net\.pth, found HTTP 40[34]; give .*--mirror"):
        fetch()
    assert files(cache) == [] and len(server.requests) == 1


def test_a_redirection_away_from_tls_is_refused() -> None:
    answer = httpx.Response(200, request=httpx.Request("GET", "http://elsewhere/net.pth"))
    with pytest.raises(BfrError, match=r"expected https://publisher/net\.pth over TLS, found .* plain http"):
        _origins.WebOrigin("https://publisher/net.pth")._check(answer)


@pytest.mark.parametrize("length", [HALF, 2 * len(CONTENT)], ids=["too short", "too long"])
def test_another_length_than_the_published_is_refused_at_once(
    server: Server, cache: Path, fetch: Fetch, length: int
) -> None:
    server.script = [announce(length)]
    with pytest.raises(BfrError, match=rf"expected a file of {len(CONTENT)} bytes at .*, found {length};"):
        fetch()
    assert files(cache) == [] and len(server.requests) == 1


def test_no_more_is_written_than_the_file_has(
    server: Server, cache: Path, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.script = [endless]
    written = 0

    def append(partial: _download.PartialFile, chunk: bytes) -> None:
        nonlocal written
        written += len(chunk)
        original(partial, chunk)

    original = _download.PartialFile.append
    monkeypatch.setattr(_download.PartialFile, "append", append)
    with pytest.raises(BfrError, match=rf"expected a file of {len(CONTENT)} bytes .*, found more"):
        fetch()
    assert 0 < written <= len(CONTENT) and files(cache) == []


def test_another_file_of_the_same_length_is_refused(server: Server, cache: Path, fetch: Fetch) -> None:
    server.content = CONTENT[::-1]
    found = hashlib.sha256(CONTENT[::-1]).hexdigest()
    with pytest.raises(BfrError, match=f"expected a file of sha256 {SHA256} at .*, found {found};"):
        fetch()
    assert files(cache) == [] and len(server.requests) == 1


def test_a_server_that_stays_broken_is_given_up_and_gone_on_with(server: Server, cache: Path, fetch: Fetch) -> None:
    server.script = [cut_half_way] + [status(500)] * (_download.TRIES)
    with pytest.raises(BfrError, match=rf"found {HALF} bytes and then, 6 times in a row, HTTP 500; the same command"):
        fetch()
    assert files(cache) == [".lib-net.pth.part", ".lib-net.pth.part.json"]
    before = len(server.requests)
    fetch()
    assert_whole(cache)
    assert server.requests[before:] == [("/v1/net.pth", f"bytes={HALF}-", '"v1"')]


def test_kept_bytes_that_were_damaged_meanwhile_are_fetched_again(server: Server, cache: Path, fetch: Fetch) -> None:
    server.script = [cut_half_way] + [status(500)] * (_download.TRIES)
    with pytest.raises(BfrError):
        fetch()
    (cache / ".lib-net.pth.part").write_bytes(bytes(HALF))
    fetch()
    assert_whole(cache)


def test_a_damaged_file_is_fetched_again(cache: Path, fetch: Fetch) -> None:
    fetch()
    (cache / "lib-net.pth").write_bytes(CONTENT[:-1])
    assert fetch()["fetched"]
    assert_whole(cache)


def test_what_cannot_be_checked_is_fetched_only_on_trust(server: Server, cache: Path, fetch: Fetch) -> None:
    with pytest.raises(UsageError, match=r"expected a known sha256 for lib/net .*--trust-on-first-use"):
        fetch(sha256=None)
    assert server.requests == []
    card = fetch(size=None, sha256=None, trust=True)
    assert card["source"] == {
        "file": "net.pth", "bytes": len(CONTENT), "sha256": SHA256, "trust": "trusted on first use"
    }  # fmt: skip
    assert_whole(cache)


def test_a_non_commercial_licence_is_agreed_to_before_the_first_byte(server: Server, fetch: Fetch) -> None:
    with pytest.raises(UsageError, match=r"consent to the licence of lib/net, L \(https://l\).*--accept-licence"):
        fetch(non_commercial=True, consent=False)
    assert server.requests == []
    assert fetch(non_commercial=True, consent=True)["non_commercial"]
    assert not fetch(non_commercial=True, consent=False)["fetched"]  # it is here: nothing to ask


def test_a_mirror_has_the_files_under_their_publishers_names(
    server: Server, cache: Path, fetch: Fetch, tmp_path: Path
) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "net.pth").write_bytes(CONTENT)
    with fsspec.open("memory://weights/net.pth", "wb") as file:
        file.write(CONTENT)
    for mirror in (f"file://{tmp_path}/mirror", str(tmp_path / "mirror"), "memory://weights"):
        fetch(mirror=mirror)
        assert_whole(cache)
        (cache / "lib-net.pth").unlink()
    assert server.requests == []
    fetch(mirror=f"{server.url}/mirror/")
    assert server.requests[0][0] == "/mirror/net.pth"


def test_a_mirror_without_the_file_says_so(cache: Path, fetch: Fetch, tmp_path: Path) -> None:
    with pytest.raises(BfrError, match=r"expected a file at .*/empty/net\.pth, found FileNotFoundError"):
        fetch(mirror=f"file://{tmp_path}/empty")
    assert files(cache) == []


def test_a_folder_that_cannot_be_written_is_named(cache: Path, fetch: Fetch) -> None:
    cache.write_text("in the way")
    with pytest.raises(BfrError, match="choose another folder with BFR_WEIGHTS"):
        fetch()


PROCESS = """
import sys
from bfr_models import weight_catalogue
from bfr_models.weight_catalogue import WeightEntry
from tasks.fetch_weights import fetch_weights

url, size, sha256 = sys.argv[1:]
entry = WeightEntry("lib/net", "", f"{url}/v1/net.pth", int(size), sha256, "L", "https://l", False)
weight_catalogue.CATALOGUE = (entry,)
print(fetch_weights(["lib/net"], lambda _: True)[0]["fetched"])
"""


def start_process(server: Server) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROCESS, server.url, str(len(CONTENT)), SHA256]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_processes_that_start_at_once_share_one_download(server: Server, cache: Path) -> None:
    server.script = [slow]
    processes = [start_process(server) for _ in range(3)]
    answers = [process.communicate(timeout=60) for process in processes]
    assert sorted(out for out, _ in answers) == ["False\n", "False\n", "True\n"], answers
    assert len(server.requests) == 1
    assert_whole(cache)


def test_a_killed_process_leaves_no_lock_and_its_bytes_are_gone_on_with(
    server: Server, cache: Path, fetch: Fetch
) -> None:
    server.script = [hang_half_way]
    process = start_process(server)
    part = cache / ".lib-net.pth.part"
    deadline = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size > HALF // 2) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    had = part.stat().st_size
    assert ".lib-net.pth.lock" in files(cache) and had > HALF // 2
    fetch()
    assert server.ranges == [None, f"bytes={had}-"]
    assert_whole(cache)
