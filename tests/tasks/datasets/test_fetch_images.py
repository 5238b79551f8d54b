"""Addresses in a dataset: which are followed, and how far."""

from __future__ import annotations

import base64
import re
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import fsspec
import pyarrow as pa
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fsspec.implementations.memory import MemoryFileSystem

from bfr_models.errors import RowError
from tasks.datasets import fetch_images
from tasks.datasets.fetch_images import Fetcher, fetch
from tasks.datasets.public_machines import is_public
from tasks.storage import filesystem, store
from tasks.storage.store import Store
from tests import support

PICTURE = support.encoded(support.portrait(3))
ADDRESSES = pa.schema([("image", pa.string())])


class Handler(BaseHTTPRequestHandler):
    """/ok.png, /busy.png is there the second time, /storm is always busy, /to?<address> redirects, /endless never
    stops, /404."""

    asked: list[str]
    hosts: list[str]

    def do_GET(self) -> None:
        self.hosts.append(self.headers["Host"])
        self.asked.append(self.path)
        if self.path.startswith("/to?"):
            self.send_response(302)
            self.send_header("Location", self.path[4:])
            self.end_headers()
        elif self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            with pytest.raises(OSError):  # noqa: PT011, PT012
                while True:
                    self.wfile.write(bytes(2**16))
        elif self.path == "/storm" or (self.path == "/busy.png" and self.asked.count(self.path) == 1):
            self.send_error(503)
        elif self.path.endswith(".png"):
            self.send_response(200)
            self.send_header("Content-Length", str(len(PICTURE)))
            self.end_headers()
            self.wfile.write(PICTURE)
        else:
            self.send_error(404)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a web server on this machine that images may be fetched from."""
    Handler.asked, Handler.hosts = [], []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("BFR_FETCH_ALLOW", "127.0.0.1")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def code(address: str, dataset: str = "s3://bucket/faces") -> str:
    with pytest.raises(RowError) as refused:
        fetch(address, dataset)
    return f"{refused.value.code}: {refused.value.detail}"


def test_a_web_picture_is_fetched_through_redirects(web: str) -> None:
    assert fetch(f"{web}/ok.png", "s3://bucket/faces") == PICTURE
    assert fetch(f"{web}/to?/ok.png", "s3://bucket/faces") == PICTURE
    assert "404" in code(f"{web}/nothing") and "redirects" in code(f"{web}/to?/to?/to?/to?/to?/to?/to?/ok.png")


def test_one_bad_answer_costs_no_row(web: str, tmp_path: Path) -> None:
    names = ("a.png", "b.png", "busy.png", "c.png")
    support.write_parquet(
        tmp_path / "src" / "a.parquet", [{"image": f"{web}/{name}"} for name in names], schema=ADDRESSES
    )
    record = support.finished_run(support.make_run(tmp_path))
    assert record["totals"]["restored"] == 4 and record["rejects"] == {}


@pytest.mark.usefixtures("own_clock")
def test_a_web_server_whose_trouble_outlasts_the_patience_rejects_the_row(
    web: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_images, "TIMEOUT", 0.5)
    assert re.search(r"503 Service Unavailable.*still after", code(f"{web}/storm"))
    assert len(Handler.asked) >= 2


def test_a_machine_that_is_off_or_not_known_rejects_the_row_and_this_ones_own_network_does_not(
    web: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_images, "TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert "refused" in code(f"http://127.0.0.1:{port}/a.png")

    def lookup(number: int) -> Any:
        raise socket.gaierror(number, "no address")

    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: lookup(socket.EAI_AGAIN))
    with pytest.raises(ConnectionError, match="no address"):
        fetch("http://a.example/a.png", "s3://bucket/faces")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: lookup(socket.EAI_NONAME))
    assert "no address" in code("http://a.example/a.png")


@pytest.mark.parametrize("verb", ["info", "read"])
def test_what_a_store_says_of_the_picture_rejects_it_and_what_it_says_of_itself_does_not(
    verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store("memory://faces").write("a.png", PICTURE)

    def saying(error: OSError) -> None:
        def say(*_: Any) -> None:
            raise error

        monkeypatch.setattr(Store, verb, say)

    for error in (PermissionError("token has expired"), OSError(22, "Bad Request"), TimeoutError("too late")):
        saying(error)
        with pytest.raises(OSError, match=re.escape(str(error))):
            fetch("memory://faces/a.png", "memory://faces")
    saying(FileNotFoundError("a.png"))
    assert "FileNotFoundError" in code("memory://faces/a.png", "memory://faces")


def test_a_store_that_is_busy_is_asked_for_as_long_as_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    Store("memory://faces").write("a.png", PICTURE)
    monkeypatch.setattr(fetch_images, "TIMEOUT", 0.5)

    def busy(*_: Any, **__: Any) -> None:
        raise TimeoutError("busy")

    monkeypatch.setattr(MemoryFileSystem, "info", busy)
    began = time.monotonic()
    with pytest.raises(ConnectionError, match="busy"):
        fetch("memory://faces/a.png", "memory://faces")
    assert time.monotonic() - began < 60


def test_pictures_of_one_bucket_come_over_one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of it with options of its own gets another."""
    bucket, made = f"memory://{uuid.uuid4().hex}", list[str]()
    names = ("a/1.png", "a/2.png", "b/c/3.png", "own/4.png", "own/d/5.png", "owned/6.png")
    for name in names:
        Store(bucket).write(name, PICTURE)
    monkeypatch.setitem(fsspec.config.conf, "bfr", {f"{bucket}/own/": {"profile": "x"}, "memory://": {}})

    def connect(url: str) -> Any:
        made.append(url)
        return filesystem.connect(url)

    monkeypatch.setattr(store, "connect", connect)
    for name in names:
        assert fetch(f"{bucket}/{name}", f"{bucket}/a") == PICTURE
    assert made == [bucket, f"{bucket}/own"]


def test_an_address_that_cannot_be_one_is_the_rows_fault() -> None:
    assert "cannot be read" in code("http://[bad")
    assert "at most 1024 bytes" in code(f"s3://bucket/{'x' * 1100}")


def test_what_does_not_end_is_cut_off(web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_images, "MAX_BYTES", 2**20)
    assert code(f"{web}/endless").startswith("too_large")
    monkeypatch.setattr(fetch_images, "MAX_BYTES", 2**40)
    monkeypatch.setattr(fetch_images, "TIMEOUT", 0.2)
    assert "found a part of it" in code(f"{web}/endless")


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:9/x", "http://localhost/x", "http://169.254.169.254/latest/meta-data", "http://[::1]/x",
     "http://10.0.0.1/x", "http://2130706433/x", "http://168.63.129.16/machine", "http://[64:ff9b::7f00:1]/x",
     "http://[64:ff9b::a9fe:a9fe]/x", "http://[64:ff9b:1::808:808]/x", "http://[2002:7f00:1::]/x",
     "http://[2002:808:808::]/x", "http://[2001:0:808:808::]/x", "http://[::ffff:10.0.0.1]/x", "http://[::127.0.0.1]/x",
     "http://[fd00:ec2::254]/x", "http://[fec0::1]/x", "http://[ff0e::1]/x", "http://224.0.0.1/x",
     "http://100.100.100.200/x", "http://192.0.0.192/x", "http://0/x"],
)  # fmt: skip
def test_machines_that_are_not_public_are_not_asked(address: str) -> None:
    assert "not public" in code(address)


@pytest.mark.parametrize("machine", ["8.8.8.8", "2606:2800:220:1::1", "64:ff9b::808:808", "::ffff:8.8.8.8"])
def test_machines_of_the_internet_are(machine: str) -> None:
    assert is_public(machine)


def test_a_redirect_to_a_machine_that_is_not_public_is_not_followed(web: str) -> None:
    assert "not public" in code(f"{web}/to?http://169.254.169.254/secret.png")
    assert "leads elsewhere" in code(f"{web}/to?file:///etc/passwd")


def test_a_name_is_resolved_once_and_that_machine_is_asked(web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS says a public address when it is asked, and loopback from then on: loopback gets no request at all."""
    resolve, answers = socket.getaddrinfo, iter(["93.184.216.34"])

    def lookup(host: str, port: Any, *rest: Any, **options: Any) -> Any:
        return resolve(next(answers, "127.0.0.1") if host == "rebinding.example" else host, port, *rest, **options)

    connected = list[str]()

    def connect(address: tuple[str, int], *_: Any, **__: Any) -> Any:
        connected.append(address[0])
        raise OSError("no way out of this test")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setattr(fetch_images, "TIMEOUT", 0.3)
    monkeypatch.setenv("BFR_FETCH_ALLOW", "")
    port = web.rpartition(":")[2]
    refused = code(f"http://rebinding.example:{port}/ok.png")
    assert connected and set(connected) == {"93.184.216.34"} and Handler.asked == []
    assert "not public" in refused or "no way out" in refused  # the retry asks the name again, and checks again


def test_the_server_is_asked_for_the_name_and_not_for_its_address(web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BFR_FETCH_ALLOW", "localhost")
    port = web.rpartition(":")[2]
    assert fetch(f"http://localhost:{port}/ok.png", "s3://bucket/faces") == PICTURE
    assert Handler.hosts == [f"localhost:{port}"]


def certificate_for(name: str, at: Path) -> Path:
    """A self-signed certificate that names no numeric address, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject, day = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]), timedelta(days=1)
    made = x509.CertificateBuilder(subject, subject, key.public_key(), 1, support.now() - day, support.now() + day)
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    key_bytes = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    at.write_bytes(key_bytes + made.sign(key, hashes.SHA256()).public_bytes(pem))
    return at


@pytest.mark.parametrize("name", ["localhost", "other.example"])
def test_a_certificate_is_checked_for_the_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = certificate_for(name, tmp_path / "certificate.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    Handler.asked, Handler.hosts = [], []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("BFR_FETCH_ALLOW", "localhost")
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        address = f"https://localhost:{server.server_address[1]}/ok.png"
        if name == "localhost":
            assert fetch(address, "s3://bucket/faces") == PICTURE
        else:
            monkeypatch.setattr(fetch_images, "TIMEOUT", 0.5)
            assert "CERTIFICATE_VERIFY_FAILED" in code(address) and Handler.asked == []
        server.shutdown()


def test_local_files_are_for_local_datasets_and_below_them(tmp_path: Path) -> None:
    (tmp_path / "set" / "in").mkdir(parents=True)
    (tmp_path / "set" / "in" / "a.png").write_bytes(PICTURE)
    (tmp_path / "outside.png").write_bytes(PICTURE)
    (tmp_path / "set" / "link.png").symlink_to(tmp_path / "outside.png")
    dataset = str(tmp_path / "set")
    for address in ("in/a.png", str(tmp_path / "set/in/a.png"), f"file://{tmp_path}/set/in/a.png"):
        assert fetch(address, dataset) == PICTURE
        assert "not local" in code(address)
    for address in ("../outside.png", "link.png", str(tmp_path / "outside.png"), "/etc/passwd"):
        assert "outside" in code(address, dataset)
    assert "found only the name" in code("in/b.png", dataset)
    assert "missing" in code("in", dataset)


@pytest.mark.parametrize("address", ["s3://other/secret.png", "gs://bucket/x", "memory://x/y", "nfsx://a/b", "http://"])
def test_other_stores_are_not_asked(address: str) -> None:
    assert code(address).startswith("missing")


def test_a_picture_that_is_asked_for_twice_is_fetched_once_and_its_neighbours_ahead(web: str) -> None:
    addresses = [f"{web}/{i}.png" for i in range(30)]
    fetcher = Fetcher("s3://bucket/faces", addresses)
    assert fetcher(addresses[0]) == fetcher(addresses[0]) == PICTURE
    fetcher(addresses[1])
    assert len(Handler.asked) <= 2 + fetch_images.AHEAD
    for address in addresses:
        fetcher(address)
    assert sorted(Handler.asked) == sorted(f"/{i}.png" for i in range(30))


def test_a_column_of_addresses_is_restored_and_what_is_not_there_is_rejected(web: str, tmp_path: Path) -> None:
    rows = [{"image": f"{web}/{i}.png", "id": str(i)} for i in range(6)]
    rows[2]["image"], rows[4]["image"] = f"{web}/gone", "http://10.0.0.1/x.png"
    schema = pa.schema([("id", pa.string()), *ADDRESSES])
    support.write_parquet(tmp_path / "src" / "a.parquet", rows, schema=schema)
    record = support.finished_run(support.make_run(tmp_path))
    assert record["totals"]["restored"] == 4 and record["rejects"] == {"missing": 2}
    rejected = support.read_table(tmp_path / "dst" / "rejected").to_pylist()
    assert [row["image"]["path"] for row in rejected] == [rows[2]["image"], rows[4]["image"]]


@pytest.mark.parametrize(
    "text",
    [
        base64.b64encode(PICTURE).decode(),
        base64.encodebytes(PICTURE).decode(),  # in lines
        base64.b64encode(PICTURE).decode().rstrip("="),
        "data:image/png;base64," + base64.b64encode(PICTURE).decode(),
        "DATA:image/png;name=a.png;base64," + quote(base64.b64encode(PICTURE)),
        "data:image/png," + quote(PICTURE),
    ],
    ids=["base64", "lines", "no-padding", "data", "quoted", "percent"],
)
def test_a_picture_that_is_spelt_out_in_its_cell_is_read_from_there(text: str, tmp_path: Path) -> None:
    assert fetch(text, str(tmp_path)) == PICTURE


@pytest.mark.parametrize(
    "cut", ["data:image/png;base64", "data:image/png;base64,iVB*", "iVBORw0KGgo" + "A" * 5000 + "*"]
)
def test_text_that_only_begins_like_a_picture_is_missing(cut: str, tmp_path: Path) -> None:
    with pytest.raises(RowError, match="expected"):
        fetch(cut, str(tmp_path))


def test_a_file_whose_name_begins_like_base64_is_still_a_file(tmp_path: Path) -> None:
    name = "AAAA" * 30 + ".png"
    (tmp_path / name).write_bytes(PICTURE)
    assert fetch(name, str(tmp_path)) == PICTURE


def test_what_is_spelt_out_is_bounded_and_not_repeated_in_messages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_images, "MAX_BYTES", 1000)
    with pytest.raises(RowError, match="a text that spells it out") as caught:
        fetch(base64.b64encode(PICTURE).decode(), str(tmp_path))
    assert caught.value.code == "too_large"
