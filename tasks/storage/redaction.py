"""URLs and messages without what may be secret in them."""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit


def redact(url: str) -> str:
    """The URL without what may be secret: user and password, and the query of a signed link."""
    parts = urlsplit(url)
    if not parts.netloc:
        return url
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def redact_text(text: str) -> str:
    """Somebody's message with every URL in it redacted. A password may hold whatever ends a URL but `/?#`."""
    text = re.sub(r"(?<=://)[^\s'\"<>/?#@:]*:[^/?#\n]*@", "", text)
    return re.sub(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s'\"<>]+", _redacted, text)


def redact_error(error: BaseException) -> None:
    """Redacts the message of an error, and of all that led to it, before others store or print them."""
    error.args = tuple(redact_text(part) if isinstance(part, str) else part for part in error.args)
    for link in ("__cause__", "__context__"):
        if (cause := getattr(error, link)) is None:
            continue
        redact_error(cause)
        if (text := redact_text(str(cause))) != str(cause):  # some make their message of other things
            stand_in = Exception(f"{type(cause).__name__}: {text}").with_traceback(cause.__traceback__)
            stand_in.__cause__, stand_in.__context__ = cause.__cause__, cause.__context__
            hidden = error.__suppress_context__
            setattr(error, link, stand_in)
            error.__suppress_context__ = hidden


def _redacted(found: re.Match[str]) -> str:
    try:
        return redact(found[0])
    except ValueError:
        return "a URL that cannot be read"


def without_secrets(url: str) -> str:
    """The URL without user and password, and without the query of a web address; a key with `?` in it stays whole."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        return url
    host, slash, path = rest.partition("/")
    if scheme in ("http", "https"):
        path = path.partition("?")[0]
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def with_secrets(url: str, given: str) -> str:
    """The URL of a file with what `without_secrets` took from it, out of the URL that its dataset was given as."""
    if url == without_secrets(given):
        return given
    scheme, mark, rest = given.partition("://")
    user, at, host = rest.partition("/")[0].rpartition("@")
    bare = f"{scheme}{mark}{host}/"
    return f"{scheme}{mark}{user}{at}{host}/{url.removeprefix(bare)}" if at and url.startswith(bare) else url
