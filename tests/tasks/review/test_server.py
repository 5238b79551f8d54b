"""Who may talk to a review, and what it answers."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from bfr_models.errors import UsageError
from tasks.review.server import guarded, make_app
from tasks.review.session import Session
from tasks.review_run import review_run

TOKEN = "a-token"


@pytest.fixture
def ended() -> list[bool]:
    return []


@pytest.fixture
def client(session: Session, ended: list[bool]) -> TestClient:
    end: Callable[[], None] = lambda: ended.append(True)  # noqa: E731
    return TestClient(guarded(make_app(session, end), TOKEN), base_url="http://127.0.0.1:8000")


@pytest.mark.parametrize(
    "path", ["/", "/another/", "/a-toke/", "/a-token2/api/about", "//api/about", "/api/about", "/é/"]
)
def test_without_the_token_nothing_is_told(path: str, client: TestClient) -> None:
    answer = client.get(path)
    assert answer.status_code == 404 and "bfr review" in answer.text and "dst" not in answer.text


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example:80", "[::1]:8000", ""])
def test_no_other_host_is_answered(host: str, client: TestClient) -> None:
    assert client.get(f"/{TOKEN}/api/about", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:9000", "localhost"])
def test_this_machine_is_also_when_its_port_is_forwarded(host: str, client: TestClient) -> None:
    answer = client.get(f"/{TOKEN}/api/about", headers={"host": host})
    assert answer.status_code == 200 and answer.json()["faces"] == 17
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "http" not in policy and "unsafe" not in policy
    assert answer.headers["cache-control"] == "no-store" and answer.headers["referrer-policy"] == "no-referrer"


def test_the_page_names_no_other_machine(client: TestClient) -> None:
    for name in ("", "review.css", "review.js"):
        answer = client.get(f"/{TOKEN}/{name}")
        assert answer.status_code == 200 and "http://" not in answer.text and "https://" not in answer.text


def test_a_decision_is_written_when_it_is_answered(client: TestClient, copy: Path) -> None:
    answer = client.post(f"/{TOKEN}/api/decide", json={"faces": [3, 4], "verdict": "approved"})
    assert [face["verdict"] for face in answer.json()] == ["approved", "approved"]
    (record,) = (copy / "review" / "decisions").glob("*.json")
    assert len(json.loads(record.read_text())["decisions"]) == 2
    assert [face["verdict"] for face in client.post(f"/{TOKEN}/api/undo", json={}).json()] == [None, None]
    assert client.get(f"/{TOKEN}/api/progress").json()["counts"]["approved"] == 0


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"content-type": "text/plain"}, b"{}", 415),
        ({"content-type": "application/json", "sec-fetch-site": "cross-site"}, b"{}", 403),
        ({"content-type": "application/json"}, b"{", 400),
        ({"content-type": "application/json"}, b"[1]", 400),
        ({"content-type": "application/json"}, b'{"faces": "all", "verdict": "approved"}', 400),
        ({"content-type": "application/json"}, b'{"faces": [true], "verdict": "approved"}', 400),
        ({"content-type": "application/json"}, b'{"faces": [0], "verdict": "good"}', 400),
        ({"content-type": "application/json"}, b" " * (2**20 + 1), 413),
    ],
)
def test_what_is_no_decision_of_the_page_is_refused(
    headers: dict[str, str], body: bytes, status: int, client: TestClient, copy: Path
) -> None:
    assert client.post(f"/{TOKEN}/api/decide", headers=headers, content=body).status_code == status
    assert not (copy / "review" / "decisions").exists()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("face/0/after", 200),
        ("face/0/before", 200),
        ("face/0/beside", 400),
        ("face/17/after", 400),
        ("photo/0/after?whole", 200),
        ("api/faces?order=worst", 400),
        ("api/faces?score=id&low=1", 400),
        ("api/faces?limit=many", 400),
        ("api/faces?score=side&low=1;DROP", 400),
        ("api/faces?outcome=x'); DROP TABLE faces; --", 200),
        ("api/image/5", 200),
        ("api/decide", 405),
        ("../etc/passwd", 404),
        ("review.py", 404),
    ],
)
def test_what_is_asked_for_is_answered_or_refused(path: str, status: int, client: TestClient) -> None:
    assert client.get(f"/{TOKEN}/{path}").status_code == status
    assert client.get(f"/{TOKEN}/api/about").json()["faces"] == 17


def test_the_page_ends_the_session(client: TestClient, ended: list[bool]) -> None:
    assert client.post(f"/{TOKEN}/api/end", json={}).json()["reviewer"] == "Anna" and ended == [True]


@pytest.mark.parametrize("name", ["", "  ", "a" * 101, "a\nb"])
def test_a_reviewer_has_a_name(name: str, copy: Path) -> None:
    with pytest.raises(UsageError, match="the name of a reviewer"):
        review_run(str(copy), reviewer=name)


def test_a_port_that_is_taken_and_a_run_that_is_not_finished_are_said_before_anything_is_served(copy: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UsageError, match="expected a free port"):
        review_run(str(copy), port=taken.getsockname()[1])
    (copy / "run.json").unlink()
    with pytest.raises(UsageError, match="expected a finished run"):
        review_run(str(copy))
