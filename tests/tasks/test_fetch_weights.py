"""A weight file arrives complete and correct or not at all, even from a server that misbehaves."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import fsspec
import httpx
import pytest

from bfr_models.errors import BfrError, UsageError
from bfr_models.weights import catalogue
from bfr_models.weights.catalogue import WeightEntry
from tasks.fetch_weights import fetch_weights
from tasks.weights import download, origins
from tests import weight_server as faults
from tests.weight_server import CONTENT, HALF, SHA256, Misbehaviour, Server, serving, status


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as started:
        yield started


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BFR_WEIGHTS", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.001)
    return tmp_path / "cache"


Fetch = Callable[..., dict[str, Any]]


@pytest.fixture
def fetch(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Fetch:
    """Fetches the one catalogued file; the keywords are what the catalogue knows about it."""

    def run(*, consent: bool = True, mirror: str | None = None, trust: bool = False, **facts: object) -> dict[str, Any]:
        known = {"size": len(CONTENT), "sha256": SHA256, "non_commercial": False, **facts}
        entry = WeightEntry(
            "lib/net", "a net", f"{server.url}/v1/net.pth", licence="L", licence_url="https://l", **known
        )
        monkeypatch.setattr(catalogue, "CATALOGUE", (entry,))
        return fetch_weights(["lib"], lambda _: consent, mirror=mirror, trust_on_first_use=trust)[0]

    return run


def files(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


WHOLE = ["lib-net.json", "lib-net.pth"]


def assert_whole(cache: Path) -> None:
    assert files(cache) == WHOLE
    assert (cache / "lib-net.pth").read_bytes() == CONTENT


def test_what_is_to_be_got_by_hand_comes_from_a_mirror_alone(server: Server, cache: Path, fetch: Fetch) -> None:
    by_hand = {"by_hand": "net_v1.pth"}
    with pytest.raises(
        UsageError, match=r"/v1/net\.pth is not the file itself; .*`bfr weights import lib net_v1\.pth`"
    ):
        fetch(**by_hand)
    assert not server.requests
    assert fetch(mirror=f"{server.url}/mirror", **by_hand)["source"]["file"] == "net_v1.pth"
    assert_whole(cache)
    assert server.requests == [("/mirror/net_v1.pth", None, None)]


@pytest.mark.parametrize("name", ["clr_face/ffhq512/vqgan", "recogniser/face-reidentification-retail-0095"])
def test_an_archive_and_a_model_of_another_format_are_not_downloaded_in_vain(name: str, cache: Path) -> None:
    """No converter reads them: what was downloaded would be thrown away."""
    with pytest.raises(UsageError, match=r"is not the file itself; get .*\.(ckpt|onnx) from there by hand and run"):
        fetch_weights([name], lambda _: True, trust_on_first_use=True)
    assert not cache.exists()


def test_a_file_is_fetched_with_its_card_and_then_left_alone(server: Server, cache: Path, fetch: Fetch) -> None:
    fetched = fetch()
    assert_whole(cache)
    assert fetched["fetched"] and fetched["sha256"] == SHA256 and fetched["source"]["trust"] == "published sha256"
    assert not fetch()["fetched"]
    assert server.requests == [("/v1/net.pth", None, None)]


@pytest.mark.parametrize(
    ("script", "ranges"),
    [
        ([faults.cut_half_way], [None, f"bytes={HALF}-"]),
        ([faults.cut_half_way, status(503), status(503)], [None] + [f"bytes={HALF}-"] * 3),
        ([faults.cut_half_way, faults.ignore_range], [None, f"bytes={HALF}-"]),
        ([faults.cut_half_way, faults.wrong_range], [None, f"bytes={HALF}-", None]),
        ([faults.cut_half_way, faults.range_of_another_version], [None, f"bytes={HALF}-", None]),
        ([faults.cut_half_way, faults.wrong_bytes_in_range], [None, f"bytes={HALF}-", None]),
        ([faults.cut_half_way, status(416)], [None, f"bytes={HALF}-", None]),
        ([faults.cut_half_way, faults.redirect], [None, f"bytes={HALF}-", f"bytes={HALF}-"]),
        ([status(429), status(503)], [None] * 3),
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


def test_a_server_that_says_nothing_is_asked_again(
    server: Server, cache: Path, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience, over = origins.TIMEOUT, threading.Event()

    def hang(_server: Server, _request: BaseHTTPRequestHandler) -> None:
        monkeypatch.setattr(origins, "TIMEOUT", patience)
        over.wait(60)

    monkeypatch.setattr(origins, "TIMEOUT", httpx.Timeout(60, read=0.4))
    server.script = [hang]
    fetch()
    over.set()
    assert_whole(cache)
    assert len(server.ranges) >= 2 and set(server.ranges) == {None}


def test_a_file_that_changes_half_way_is_not_mixed(server: Server, cache: Path, fetch: Fetch) -> None:
    def cut_and_change(state: Server, request: BaseHTTPRequestHandler) -> None:
        faults.cut_half_way(state, request)
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
        origins.WebOrigin("https://publisher/net.pth")._check(answer)


@pytest.mark.parametrize("length", [HALF, 2 * len(CONTENT)], ids=["too short", "too long"])
def test_another_length_than_the_published_is_refused_at_once(
    server: Server, cache: Path, fetch: Fetch, length: int
) -> None:
    server.script = [faults.announce(length)]
    with pytest.raises(BfrError, match=rf"expected a file of {len(CONTENT)} bytes at .*, found {length};"):
        fetch()
    assert files(cache) == [] and len(server.requests) == 1


def test_no_more_is_written_than_the_file_has(
    server: Server, cache: Path, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.script = [faults.endless]
    written = 0

    def append(partial: download.PartialFile, chunk: bytes) -> None:
        nonlocal written
        written += len(chunk)
        original(partial, chunk)

    original = download.PartialFile.append
    monkeypatch.setattr(download.PartialFile, "append", append)
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
    server.script = [faults.cut_half_way] + [status(500)] * (download.TRIES)
    with pytest.raises(BfrError, match=rf"found {HALF} bytes and then, 6 times in a row, HTTP 500; the same command"):
        fetch()
    assert files(cache) == [".lib-net.pth.part", ".lib-net.pth.part.json"]
    before = len(server.requests)
    fetch()
    assert_whole(cache)
    assert server.requests[before:] == [("/v1/net.pth", f"bytes={HALF}-", '"v1"')]


def test_kept_bytes_that_were_damaged_meanwhile_are_fetched_again(server: Server, cache: Path, fetch: Fetch) -> None:
    server.script = [faults.cut_half_way] + [status(500)] * (download.TRIES)
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


def test_all_that_has_to_be_accepted_is_told_at_once(server: Server, fetch: Fetch) -> None:
    with pytest.raises(UsageError) as refused:
        fetch(size=None, sha256=None, non_commercial=True, consent=False)
    told = str(refused.value)
    assert "expected a known sha256 for lib/net" in told and "expected consent to the licence of lib/net" in told
    assert told.endswith("then: `bfr weights fetch lib --trust-on-first-use --accept-licence`")
