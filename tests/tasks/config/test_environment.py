"""What a command sets in its environment, and what it leaves as it is."""

from __future__ import annotations

import urllib.request

import pytest

from tasks.config.environment import prepare_environment


@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_no_proxy_leads_to_this_machine_and_what_the_user_has_excepted_stays(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv(name, "store.example.org, localhost")
    prepare_environment()
    prepare_environment()
    for host in ("127.0.0.1:4200", "localhost:8000", "store.example.org"):
        assert urllib.request.proxy_bypass(host), host
    assert not urllib.request.proxy_bypass("elsewhere.example.org")
