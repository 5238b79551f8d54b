"""URLs are shown without their credentials."""

from __future__ import annotations

import pytest

from bfr_models.errors import UsageError
from tasks.runs.source import open_source
from tasks.storage.redaction import redact


def test_no_message_shows_a_secret() -> None:
    assert redact("https://me:hunter2@host:8/a?X-Amz-Signature=f00") == "https://host:8/a"
    assert redact("/data/a?b") == "/data/a?b"
    with pytest.raises(UsageError) as caught:
        open_source("http://me:hunter2@127.0.0.1:9/a.parquet?sig=f00")
    assert "127.0.0.1:9" in str(caught.value)
    assert not {"hunter2", "f00"} & set(str(caught.value).replace("@", " ").replace("=", " ").split())
