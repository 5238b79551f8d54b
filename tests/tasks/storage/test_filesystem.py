"""From a URL to the filesystem that knows it, with the settings for its place."""

from __future__ import annotations

import fsspec
import pytest

from bfr_models.errors import UsageError
from tasks.storage.filesystem import connect
from tasks.storage.store import Store


def test_a_bucket_or_folder_has_settings_of_its_own_by_the_longest_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    places = {"s3://scans": {"requester_pays": True, "profile": "reader"}, "s3://scans/ours/": {"anon": True}}
    monkeypatch.setitem(fsspec.config.conf, "bfr", places)
    whole, ours, other = (connect(url)[0] for url in ("s3://scans/a/x", "s3://scans/ours/y", "s3://scans-2/z"))
    assert whole.requester_pays and not whole.anon and whole.storage_options["profile"] == "reader"
    assert ours.anon and not ours.requester_pays
    assert not other.requester_pays and not other.anon


@pytest.mark.parametrize(
    ("url", "advice"),
    [("nfsx://host/a", "protocol"), ("gs://bucket/a", "gcsfs"), ("s3:/bucket/a", "s3://bucket/a")],
)
def test_a_url_without_a_driver_says_what_to_do(url: str, advice: str) -> None:
    with pytest.raises(UsageError, match=advice):
        Store(url)
