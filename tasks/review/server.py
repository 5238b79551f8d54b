"""Serves a review to a browser on this machine: a page, its pictures, and the decisions that come back.

    http://127.0.0.1:<port>/<token>/          whoever has the token in the address is the reviewer; it is new each time
    .../api/about, progress, faces, image     JSON
    .../face/<number>/<before|after>          a face; `?whole` with no limit to its size
    .../photo/<number>/<before|after>         the image it is in
    POST .../api/decide, undo, end            nothing is answered before it is written

Only this machine can connect. A page of somebody else's in the same browser cannot know the token; a name that was
rebound to 127.0.0.1 is refused by its host header; the page itself is kept from asking anybody else by its policy.
"""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hmac import compare_digest
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from bfr_models.errors import BfrError, RowError, UsageError
from tasks.report.page import LOOK
from tasks.review.faces import AFTER, BEFORE, Filter
from tasks.review.session import Session
from tasks.storage.redaction import redact_text

ADDRESS = "127.0.0.1"
HOSTS = (ADDRESS, "localhost")
MAX_BODY = 2**20
_PAGE = Path(__file__).parent / "page"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",  # faces do not stay in the browser's files
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Review:
    """A server for one session, on a port of this machine."""

    def __init__(self, session: Session, port: int = 0) -> None:
        """UsageError if the port is taken; 0 takes a free one."""
        token = secrets.token_urlsafe(24)
        try:
            self._socket = socket.create_server((ADDRESS, port))
        except OSError as error:
            raise UsageError(f"expected a free port, found {port} taken ({error.strerror}); choose another") from None
        self.url = f"http://{ADDRESS}:{self._socket.getsockname()[1]}/{token}/"
        app = guarded(make_app(session, self._end), token)
        config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, lifespan="off")
        self._server = _Server(config)

    def run(self) -> None:
        """Serves until the page ends the session, or the process is interrupted."""
        with suppress(KeyboardInterrupt), self._socket:  # the usual way to end it: nothing is lost by it
            self._server.run(sockets=[self._socket])

    def _end(self) -> None:
        self._server.should_exit = True


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals stay what the command has made of them."""
        yield


def guarded(app: ASGIApp, token: str) -> ASGIApp:
    """Lets through who knows the token, by the right name of this machine, and adds the headers."""

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope.get("headers", ())}
        _, given, *rest = [*str(scope["path"]).split("/"), ""]
        refused = _refusal(scope, headers, given, token)
        if refused is not None:
            await refused(scope, receive, send)
            return
        path = "/" + "/".join(rest[:-1])

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                added = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        await app({**scope, "path": path, "raw_path": path.encode(), "root_path": ""}, receive, send_with_headers)

    return guard


def _refusal(scope: Scope, headers: Mapping[str, str], given: str, token: str) -> Response | None:
    """What a request is answered that is not let through. It tells nothing of the run."""
    if headers.get("host", "").partition(":")[0] not in HOSTS:
        return PlainTextResponse(f"expected the host {ADDRESS}", 421)
    if not compare_digest(given.encode(), token.encode()):
        return PlainTextResponse("expected the address that `bfr review` printed", 404)
    if scope["method"] == "POST":
        if headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return PlainTextResponse("expected a request of the page itself", 403)
        if headers.get("content-type", "").partition(";")[0] != "application/json":
            return PlainTextResponse("expected JSON", 415)
    return None


def make_app(session: Session, end: Callable[[], None]) -> Starlette:
    """The routes, without the guard."""

    def stop(session: Session, _: Mapping[str, Any]) -> Any:
        end()
        return session.result()

    files = {
        "": (_PAGE / "review.html", "text/html"),
        "look.css": (LOOK, "text/css"),
        "review.css": (_PAGE / "review.css", "text/css"),
        "review.js": (_PAGE / "review.js", "text/javascript"),
    }
    shown = {
        "/api/about": lambda session, _: session.about(),
        "/api/progress": lambda session, request: session.progress(_filter(request)),
        "/api/faces": _faces,
        "/api/image/{face:int}": lambda session, request: session.image(request.path_params["face"]),
        "/face/{face:int}/{which:str}": _face,
        "/photo/{face:int}/{which:str}": _photo,
    }
    done = {"/api/decide": _decide, "/api/undo": lambda session, _: session.undo(), "/api/end": stop}
    return Starlette(
        routes=[
            *(Route(f"/{name}", _file(path, kind)) for name, (path, kind) in files.items()),
            *(Route(path, _answer(session, answer)) for path, answer in shown.items()),
            *(Route(path, _take(session, act), methods=["POST"]) for path, act in done.items()),
        ]
    )


def _faces(session: Session, request: Request) -> Any:
    key, face = request.query_params.get("key"), request.query_params.get("after")
    after = None if key is None or face is None else (_number(key), int(_number(face)))
    return session.page(_filter(request), after, int(_number(request.query_params.get("limit", "48"))))


def _face(session: Session, request: Request) -> bytes:
    row = session.row(request.path_params["face"])
    return session.pictures.cut(row, _which(request), small="whole" not in request.query_params)


def _photo(session: Session, request: Request) -> bytes:
    return session.pictures.photo(session.row(request.path_params["face"]), _which(request))


def _decide(session: Session, asked: Mapping[str, Any]) -> Any:
    faces, redo = asked.get("faces"), asked.get("redo")
    if not isinstance(faces, list) or not all(type(one) is int for one in faces):
        raise UsageError(f"expected the numbers of faces, found {str(faces)[:100]}")
    return session.decide(faces, str(asked.get("verdict")), redo if isinstance(redo, dict) else None)


def _file(path: Path, kind: str) -> Callable[[Request], Response]:
    return lambda _: Response(path.read_bytes(), media_type=kind)


def _answer(session: Session, answer: Callable[[Session, Request], Any]) -> Callable[[Request], Any]:
    """A route for a function that gives a WebP or JSON, in a thread."""

    async def route(request: Request) -> Response:
        return await run_in_threadpool(_answered, lambda: answer(session, request))

    return route


def _take(session: Session, act: Callable[[Session, Mapping[str, Any]], Any]) -> Callable[[Request], Any]:
    """The same for a function that takes JSON."""

    async def route(request: Request) -> Response:
        if int(request.headers.get("content-length", MAX_BODY + 1)) > MAX_BODY:
            return PlainTextResponse(f"expected at most {MAX_BODY} bytes, and their number", 413)
        body = await request.body()
        return await run_in_threadpool(_answered, lambda: act(session, _parsed(body)))

    return route


def _answered(answer: Callable[[], Any]) -> Response:
    try:
        found = answer()
    except UsageError as error:
        return PlainTextResponse(redact_text(str(error)), 400)
    except (RowError, BfrError, OSError) as error:
        return PlainTextResponse(redact_text(str(error)), 404 if isinstance(error, RowError) else 500)
    return Response(found, media_type="image/webp") if isinstance(found, bytes) else JSONResponse(found)


def _parsed(body: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(body or b"{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UsageError("expected a JSON object, found something else")
    return found


def _filter(request: Request) -> Filter:
    """What the page asks for in its query."""
    given = request.query_params
    low, high, decade = given.get("low"), given.get("high"), given.get("decade")
    return Filter(
        outcomes=tuple(given.getlist("outcome")),
        state=given.get("state", ""),
        score=given.get("score", ""),
        low=_number(low) if low else None,
        high=_number(high) if high else None,
        decade=int(_number(decade)) if decade else None,
        folder=given.get("folder", ""),
        order=given.get("order", "doubt"),
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"expected a number, found {text[:40]!r}") from None


def _which(request: Request) -> str:
    which = str(request.path_params["which"])
    if which not in (BEFORE, AFTER):
        raise UsageError(f"expected {BEFORE} or {AFTER}, found {which[:40]!r}")
    return which
