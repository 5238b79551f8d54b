"""What it means that a store refuses, in words: what was expected, what was found, what to do."""

from __future__ import annotations

from typing import Any

from bfr_models.errors import BfrError, UsageError
from tasks.storage.http_errors import http_code, http_message, http_status
from tasks.storage.redaction import redact, redact_text
from tasks.storage.retry import is_transient, with_retries

CREDENTIALS = (
    "the credentials in the environment (s3: AWS_ACCESS_KEY_ID or AWS_PROFILE, AWS_ENDPOINT_URL, and `requester_pays` "
    "in fsspec's configuration where readers pay; gs: GOOGLE_APPLICATION_CREDENTIALS)"
)
_LONGEST = 300  # characters of what a store says
_RENEW = "renew the credentials and run the same command again, or use a profile or role whose credentials renew"
_ADVICE = {
    "NoSuchBucket": "create it, or correct the URL",
    "ExpiredToken": _RENEW,
    "ExpiredTokenException": _RENEW,
    "TokenRefreshRequired": _RENEW,
    "InvalidObjectState": "restore it to a class that can be read at once, by the store's own tools",
    "400": f"{_RENEW}; or correct the region",
}
_FOUND = {
    "NoSuchBucket": "no such bucket",
    "ExpiredToken": "credentials that have expired",
    "InvalidObjectState": "an object in an archive of the store (as S3 Glacier)",
    # S3 answers HEAD without a body, so without its code
    "400": "a refusal without a reason (status 400), as of credentials that have expired",
}


def refusal(error: BaseException) -> BfrError | None:
    """What a store refused, found behind an error; None if no store did, or if the same request may succeed later.
    UsageError for keys that are wrong or may not, and for a bucket that is not there: the same run could not go on."""
    status, code = http_status(error), http_code(error)
    if not isinstance(error, OSError) or status not in (400, 401, 403, 404) or is_transient(error):
        return None
    where = f" at {redact_text(str(error.filename))}" if error.filename else ""
    said = "".join(f": {said}" for said in [redact_text(http_message(error)[:_LONGEST])] if said)
    found = _FOUND.get(code, f"{'nothing' if status == 404 else 'a refusal'} ({code or 'HTTP'}, status {status}{said})")
    advice = _ADVICE.get(code, f"check the URL, the permissions, and {CREDENTIALS}")
    is_wrong = code == "NoSuchBucket" or (status in (401, 403) and code not in _ADVICE)
    kind = UsageError if is_wrong else BfrError
    return kind(f"expected a place in a store that this machine may use{where}, found {found}; {advice}")


def require_bucket(fs: Any, path: str) -> None:
    """UsageError if a folder is in an S3 bucket that does not exist, or may not be listed there."""
    bucket, _, key = path.partition("/")
    try:
        with_retries(fs.call_s3, "list_objects_v2", Bucket=bucket, Prefix=f"{key}/" if key else "", MaxKeys=1)
    except (FileNotFoundError, PermissionError) as error:
        gone = isinstance(error, FileNotFoundError)
        raise UsageError(
            f"expected a bucket that this machine may list and write for s3://{path}, found "
            f"{'no bucket of this name' if gone else f'a refusal ({http_code(error)})'}; "
            f"{'create it, or correct the URL' if gone else f'check the permissions, and {CREDENTIALS}'}"
        ) from error


def cannot_read(url: str, error: Exception) -> UsageError:
    """The error of a source that cannot be listed or read."""
    advice = f"check the URL, the permissions, and {CREDENTIALS}"
    if "://" not in url:
        advice = "check the path, and who may read it"
    found = _FOUND.get(http_code(error), type(error).__name__)
    return UsageError(
        f"cannot read {redact(url)}: expected a dataset that this machine may read, found {found}; "
        f"{_ADVICE.get(http_code(error), advice)}"
    )
