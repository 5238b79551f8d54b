"""Fetches images that a dataset has only addresses of, within bounds that make an untrusted list safe to follow.

The author of a dataset chooses its addresses, so only these are followed (SECURITY.md):

* `http(s)://` to public machines;
* object stores, in the bucket that the dataset itself is in;
* files below the folder of a dataset that is itself on a local disk;
* and the hosts and buckets in the environment variable BFR_FETCH_ALLOW, separated by commas.

What is spelt out in the cell itself, as a `data:` URI or in base64, is not fetched at all.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from bfr_models.errors import BfrError, RowError
from tasks.datasets.public_machines import is_public
from tasks.datasets.spelt_out import is_spelt_out, spelt_out
from tasks.storage.filesystem import place_of
from tasks.storage.redaction import redact, redact_text
from tasks.storage.retry import is_transient, retry_deadline, with_retries
from tasks.storage.store import shared_store

if TYPE_CHECKING:
    import httpx

MAX_BYTES = 64 * 2**20  # of one image
TIMEOUT = 60.0  # seconds for one attempt, however slowly its bytes come, and for all retries after it
MAX_NAME = 1024  # bytes of an object's key: no store has longer ones
MAX_REDIRECTS = 5
MAX_MACHINES = 4  # behind one name, tried in turn
AHEAD = 8  # images being fetched while one is restored
KEPT_BYTES = 256 * 2**20  # kept because an image is read twice: for its size, and to be decoded

_FINAL = (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError, BfrError, socket.gaierror)
"""Errors about this one image, unless they are transient, beside those of web servers. All others are problems of its
storage."""


class Fetcher:
    """Fetches images of one dataset; `upcoming` has the addresses in the order in which they will be asked for."""

    def __init__(self, dataset: str, upcoming: Sequence[str] = ()) -> None:
        self._dataset = dataset
        self._upcoming = list(dict.fromkeys(upcoming))
        self._positions = {address: position for position, address in enumerate(self._upcoming)}
        self._kept = OrderedDict[str, Future[bytes]]()
        self._threads: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    def __call__(self, address: str) -> bytes | None:
        """The bytes behind an address; starts to fetch the next ones meanwhile. Raises what `fetch` raises."""
        position = self._positions.get(address)
        ahead = [] if position is None else self._upcoming[position + 1 : position + 1 + AHEAD]
        with self._lock:
            wanted = self._start(address)
            for later in ahead:
                self._start(later)
            self._kept.move_to_end(address)
            self._forget(keep={address, *ahead})
        return wanted.result()

    def _start(self, address: str) -> Future[bytes]:
        if address not in self._kept:
            self._threads = self._threads or ThreadPoolExecutor(AHEAD, thread_name_prefix="fetch")
            self._kept[address] = self._threads.submit(fetch, address, self._dataset)
        return self._kept[address]

    def _forget(self, keep: set[str]) -> None:
        """Drops finished fetches, least recently used first, down to `KEPT_BYTES`; never those in `keep`."""
        done = [a for a, future in self._kept.items() if a not in keep and future.done()]
        sizes = {a: 0 if self._kept[a].exception() else len(self._kept[a].result()) for a in done}
        total = sum(sizes.values())
        for address in done:
            if total <= KEPT_BYTES and len(done) < 100_000:  # failures have no bytes, but take memory too
                break
            total -= sizes[address]
            del self._kept[address]


def fetch(address: str, dataset: str) -> bytes:
    """The bytes behind one address in a dataset that is at the URL `dataset`; or those that it spells out itself.

    RowError `missing` if retrying cannot help or the address is not followed, `too_large` above `MAX_BYTES`; `missing`
    also if a web server keeps failing for `TIMEOUT`, since in a long list some always do (`--retry-rejected missing`
    tries them again). Errors of the dataset's own store or of this machine's network that persist, and a store that
    denies access, raise something else: the row is not to blame, and its shard has to be tried again.
    """
    if is_spelt_out(address):
        return _bounded_text(address)
    try:
        scheme = urlsplit(address).scheme if "://" in address else "file"
        with retry_deadline(TIMEOUT):
            if scheme in ("http", "https"):
                return with_retries(_from_web, address)
            if scheme == "file":
                return _from_disk(address.removeprefix("file://"), dataset)
            return _from_store(address, dataset)
    except RowError:
        raise
    except Exception as error:  # each driver raises its own types
        import httpx

        expected = f"expected a picture at {_short(address)}, found"
        why = redact_text(f"{type(error).__name__}: {error}").partition("\n")[0][:200]
        if isinstance(error, PermissionError):
            raise PermissionError(f"{expected} {why}; check the permissions, and the age of the credentials") from None
        if is_transient(error):
            why += f", still after {TIMEOUT:g} s of trying"
            if not isinstance(error, httpx.HTTPError):
                raise ConnectionError(f"{expected} {why}") from None
        if not isinstance(error, (*_FINAL, httpx.HTTPError, httpx.InvalidURL)):
            raise
        raise RowError("missing", f"{expected} {why}") from None


def _from_web(address: str) -> bytes:
    import httpx

    deadline = time.monotonic() + TIMEOUT
    # 10 s without a byte end an attempt; the deadline ends one whose bytes trickle in. Redirects are followed here, so
    # that each target is checked as the first address is.
    with httpx.Client(timeout=10, follow_redirects=False) as client:
        for _ in range(MAX_REDIRECTS + 1):
            with _answer(client, address) as response:
                if response.is_redirect:
                    address = urljoin(address, response.headers["location"])
                    if urlsplit(address).scheme not in ("http", "https"):
                        raise _refused(address, "a web address that leads elsewhere")
                    continue
                response.raise_for_status()
                return _bounded(address, response, deadline)
    raise RowError("missing", f"expected a picture at {_short(address)}, found more than {MAX_REDIRECTS} redirects")


@contextmanager
def _answer(client: httpx.Client, address: str) -> Iterator[httpx.Response]:
    """The response of one of the machines that the address names.

    A name is resolved once, and the connection made to the very machine that was checked: asked a second time, a name
    server may well say something else. A proxy resolves names itself.
    """
    import httpx

    url = httpx.URL(address)
    for machine in [None] if _proxied() else _machines(address):
        with ExitStack() as stack:
            try:
                response = stack.enter_context(_request(client, url, machine))
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error  # a machine of two address families may be reached by one of them alone
                continue
            yield response
            return
    raise failure


def _request(client: httpx.Client, url: httpx.URL, machine: str | None) -> AbstractContextManager[httpx.Response]:
    if machine is None:
        return client.stream("GET", url)
    name = {"sni_hostname": url.raw_host.decode("ascii")}  # whose certificate is asked for, and checked
    host = {"Host": url.netloc.decode("ascii")}
    return client.stream("GET", url.copy_with(host=machine), headers=host, extensions=name)


def _machines(address: str) -> list[str]:
    """The numeric addresses behind a web address. RowError if one of them is not public."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    found = socket.getaddrinfo(host, parts.port or 443, type=socket.SOCK_STREAM)
    machines = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if host not in _allowed() and not all(is_public(machine) for machine in machines):
        raise _refused(address, "a machine that is not public")
    return machines[:MAX_MACHINES]


def _bounded(address: str, response: httpx.Response, deadline: float) -> bytes:
    data = bytearray()
    for chunk in response.iter_bytes(2**16):
        data += chunk
        if len(data) > MAX_BYTES:
            raise _too_large(address)
        if time.monotonic() > deadline:
            raise RowError("missing", f"expected all of {_short(address)} in {TIMEOUT:g} s, found a part of it")
    return bytes(data)


def _bounded_text(text: str) -> bytes:
    if len(text) > 3 * MAX_BYTES:  # base64 is a third longer than its bytes, %XX three times
        raise _too_large(text)
    data = spelt_out(text)
    if len(data) > MAX_BYTES:
        raise _too_large(text)
    return data


def _proxied() -> bool:
    """Whether the peer is a proxy, which may well have a private address."""
    return any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY"))


def _from_disk(path: str, dataset: str) -> bytes:
    if "://" in dataset:
        raise _refused(path, "a local file, named by a dataset that is not local")
    folder = os.path.realpath(dataset)
    full = os.path.realpath(os.path.join(folder, path))  # after following links, which may lead out of it
    if os.path.commonpath([folder, full]) != folder:
        raise _refused(path, "a file outside of the dataset's folder")
    if not os.path.isfile(full):
        raise RowError("missing", f"expected picture bytes or a file, found only the name {_short(path)}")
    if os.path.getsize(full) > MAX_BYTES:
        raise _too_large(path)
    with open(full, "rb") as file:
        return file.read(MAX_BYTES)


def _from_store(address: str, dataset: str) -> bytes:
    parts, home = urlsplit(address), urlsplit(dataset)
    if (parts.scheme, parts.netloc) != (home.scheme, home.netloc) and parts.netloc not in _allowed():
        raise _refused(address, "another bucket than the dataset's")
    if len(parts.path.encode()) > MAX_NAME:
        raise RowError("missing", f"expected a name of at most {MAX_NAME} bytes, found {_short(address)}")
    root = max(f"{parts.scheme}://{parts.netloc}", place_of(address), key=len)
    store, name = shared_store(root), address.removeprefix(f"{root}/")
    if store.info(name).size > MAX_BYTES:
        raise _too_large(address)
    return store.read(name)


def _allowed() -> set[str]:
    return {name.strip() for name in os.environ.get("BFR_FETCH_ALLOW", "").split(",") if name.strip()}


def _refused(address: str, why: str) -> RowError:
    return RowError("missing", f"{_short(address)} is not followed: {why} (BFR_FETCH_ALLOW names exceptions)")


def _too_large(address: str) -> RowError:
    return RowError("too_large", f"expected a picture of at most {MAX_BYTES // 2**20} MiB at {_short(address)}")


def _short(address: str) -> str:
    try:
        return "a text that spells it out" if is_spelt_out(address) else repr(redact(address)[:200])
    except ValueError:
        return "an address that cannot be read"
