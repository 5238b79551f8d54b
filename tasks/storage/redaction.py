"""Removes what may be secret from URLs and messages."""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit


def redact(url: str) -> str:
    """The URL without user, password and query: a signed link has its signature in the query."""
    parts = urlsplit(url)
    if not parts.netloc:
        return url
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def redact_text(text: str) -> str:
    """A message with every URL in it redacted."""
    # First user:password@, since a password may contain the spaces and quotes that end a URL for the second pattern.
    text = re.sub(r"(?<=://)[^\s'\"<>/?#@:]*:[^/?#\n]*@", "", text)
    return re.sub(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s'\"<>]+", _redacted, text)


def redact_error(error: BaseException) -> None:
    """Redacts the message of an error and of its whole chain of causes, before it is stored or printed."""
    error.args = tuple(redact_text(part) if isinstance(part, str) else part for part in error.args)
    for link in ("__cause__", "__context__"):
        if (cause := getattr(error, link)) is None:
            continue
        redact_error(cause)
        if (text := redact_text(str(cause))) != str(cause):  # its message does not come from `args`: replace the error
            replacement = Exception(f"{type(cause).__name__}: {text}").with_traceback(cause.__traceback__)
            replacement.__cause__, replacement.__context__ = cause.__cause__, cause.__context__
            hidden = error.__suppress_context__
            setattr(error, link, replacement)
            error.__suppress_context__ = hidden


def _redacted(found: re.Match[str]) -> str:
    try:
        return redact(found[0])
    except ValueError:
        return "a URL that cannot be read"


def without_secrets(url: str) -> str:
    """The URL without user, password and, for http(s), query; the `?` in an object's key is part of its name."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        return url
    host, slash, path = rest.partition("/")
    if scheme in ("http", "https"):
        path = path.partition("?")[0]
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def with_secrets(url: str, given: str) -> str:
    """Undoes `without_secrets` for a file's URL, with the secrets of the URL that its dataset was `given` as."""
    if url == without_secrets(given):
        return given
    scheme, mark, rest = given.partition("://")
    user, at, host = rest.partition("/")[0].rpartition("@")
    bare = f"{scheme}{mark}{host}/"
    return f"{scheme}{mark}{user}{at}{host}/{url.removeprefix(bare)}" if at and url.startswith(bare) else url
