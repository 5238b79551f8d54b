"""Parquet, an archive and an image on web servers of every kind."""

from __future__ import annotations

import gzip
import io
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bfr_models.errors import UsageError
from tasks.pack_pictures import pack_pictures
from tests import support

IMAGE = support.encoded(support.portrait(1, 24))


def files() -> dict[str, bytes]:
    pq.write_table(pa.table({"image": [IMAGE]}), table := io.BytesIO())
    with zipfile.ZipFile(archive := io.BytesIO(), "w") as opened:
        opened.writestr("a.png", IMAGE)
    return {"/a.parquet": table.getvalue(), "/a.zip": archive.getvalue(), "/a.png": IMAGE}


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """Gives parts of files, gives them whole whatever is asked, compresses them, or does not say how long they are."""
    kind, known = request.param, files()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(self.path)

        def do_GET(self) -> None:
            self.wfile.write(self.answer(self.path, self.headers.get("Range", "")))

        def answer(self, path: str, asked: str = "") -> bytes:
            data = known.get(path, b"")
            first, last = 0, len(data) - 1
            if asked and kind == "parts":
                first, last = (int(number) for number in asked.removeprefix("bytes=").split("-"))
            self.send_response((206 if asked and kind == "parts" else 200) if data else 404)
            part = data[first : last + 1]
            if kind == "compressed" and "gzip" in self.headers.get("Accept-Encoding", ""):
                part = gzip.compress(part)
                self.send_header("Content-Encoding", "gzip")
            if kind != "no length":
                self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            return part

        def log_message(self, *_: Any) -> None: ...

    found = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{found.server_address[1]}"
    found.shutdown()
    found.server_close()


@pytest.mark.parametrize("server", ["parts", "whole", "compressed", "no length"], indirect=True)
def test_a_file_is_read_from_any_web_server(server: str, tmp_path: Path) -> None:
    for path in files():
        pack_pictures(server + path, str(tmp_path / "out"), overwrite=True)
        assert [cell["bytes"] for cell in pq.read_table(tmp_path / "out")["image"].to_pylist()] == [IMAGE], path
    for path in ("/none.png", "/none.zip", "/none.parquet"):
        with pytest.raises(UsageError, match="none"):
            pack_pictures(server + path, str(tmp_path / "out"), overwrite=True)
