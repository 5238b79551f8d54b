"""What pydantic finds wrong with settings, in the words of the command line: flags and not fields."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bfr_models.errors import BfrError, UsageError, did_you_mean
from tasks.storage.redaction import redact_text
from tasks.storage.refusals import CREDENTIALS

_MOST = 3
"""Faults that are told at once; the others follow once these are mended."""


def told(error: ValidationError, model: type[BaseModel], flags: Mapping[str, str]) -> str:
    """The faults of a model's settings. `flags` are those of the command by field; a field without one is named as it
    is, since it can only be set in a file."""
    faults = [_fault(found, model, flags) for found in error.errors()]
    more = f"; and {len(faults) - _MOST} more" if len(faults) > _MOST else ""
    return "; ".join(faults[:_MOST]) + more


def _fault(found: ErrorDetails, model: type[BaseModel], flags: Mapping[str, str]) -> str:
    message, given = found["msg"].removeprefix("Value error, "), found["input"]
    if not found["loc"]:  # about the settings as a whole
        return message
    field = str(found["loc"][0])
    place = flags.get(field, field)
    if found["type"] == "missing":
        return f"expected {place} ({model.model_fields[field].description}), found none"
    if found["type"] == "extra_forbidden":
        return f"expected a setting of this command, found {field!r}{_nearest(field, model.model_fields)}"
    if found["type"] == "literal_error":
        choices = re.findall(r"'([^']*)'", str(found["ctx"]["expected"]))
        return f"expected {place} {' or '.join(choices)}, found {given!r}{did_you_mean(str(given), choices)}"
    if message.startswith("expected"):
        return f"{place}: {message}" if ", found" in message else f"{place}: {message}, found {given!r}"
    return f"expected {place} as {message.removeprefix('Input should be ')}, found {given!r}"


def _nearest(name: str, known: Iterable[str]) -> str:
    return did_you_mean(name, list(known)) or "; --help lists the settings, without their dashes"


_ADVICE = {
    errno.ENOSPC: ("space left on the device", "found none", "free some, or use another destination"),
    errno.EDQUOT: ("room in your quota", "found none", "free some, or use another destination"),
    errno.EFBIG: ("room for a file of this size", "found none", "raise `ulimit -f`, or use another file system"),
    errno.EROFS: ("a destination that can be written", "found a read-only file system", "use another destination"),
    errno.EACCES: ("permission", "found none", "give it to this user, or use another path"),
    errno.EPERM: ("permission", "found none", "give it to this user, or use another path"),
    errno.ENOTDIR: ("a folder", "found a file", "correct the path"),
    errno.EISDIR: ("a file", "found a folder", "correct the path"),
    errno.ENAMETOOLONG: ("a name that the file system takes", "found a longer one", "use a shorter path"),
    errno.EMFILE: ("more open files", "found the limit reached", "raise `ulimit -n`"),
    errno.ENOMEM: ("more memory", "found none left", "close other programs, or take smaller --shard-rows"),
}


_OF_THE_CALLER = (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)


def advice_on(error: OSError) -> BfrError | None:
    """What the operating system refused, in three parts; None for what it says well enough itself."""
    if error.errno not in _ADVICE:
        return None
    expected, found, to_do = _ADVICE[error.errno]
    place = _file_in_the_way(str(error.filename)) if error.errno == errno.ENOTDIR else error.filename
    where = f" at {place}" if error.filename else ""
    kind = UsageError if error.errno in _OF_THE_CALLER else BfrError
    return kind(f"expected {expected}{where}, {found}; {to_do}, then run the same command again")


def _file_in_the_way(path: str) -> str:
    """The part of a path that is a file, where a folder was needed."""
    while not os.path.isfile(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return path


_UNSETTLED = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "ConfigParseError")
"""What botocore raises before it asks a store: by name, so that it is not imported without one."""


def advice_on_settings(error: BaseException) -> UsageError | None:
    """What Prefect does not take of its settings, as PREFECT_CLIENT_MAX_RETRIES=many, and what the driver of S3 lacks
    in its own; None for another error."""
    if type(error).__name__ in _UNSETTLED or str(error).startswith("Invalid endpoint: "):
        return UsageError(
            f"expected settings with which S3 can be asked, found: {redact_text(str(error))}; check {CREDENTIALS}; "
            "an address starts with http:// or https://"
        )
    if not isinstance(error, ValidationError) or not error.title.endswith("Settings"):
        return None
    wrong = "; ".join(f"{'.'.join(map(str, one['loc']))} = {one['input']!r} ({one['msg']})" for one in error.errors())
    return UsageError(
        f"expected settings that Prefect takes, found in its {error.title}: {redact_text(wrong)}; correct the "
        "PREFECT_... variable of this name, or the profile (`prefect config view` shows them)"
    )
