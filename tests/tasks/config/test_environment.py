"""What a command sets in its environment before Prefect and Ray start, and what it leaves as it is."""

from __future__ import annotations

import os
import urllib.request
from pathlib import Path

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


def test_prefects_own_home_is_its_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"HOME": str(tmp_path)})
    for make in (lambda: None, lambda: (tmp_path / ".prefect").chmod(0o755)):
        make()
        prepare_environment()
        assert (tmp_path / ".prefect").stat().st_mode & 0o777 == 0o700


def test_a_home_that_the_user_has_named_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shared").mkdir(mode=0o755)
    monkeypatch.setattr(os, "environ", {"HOME": str(tmp_path), "PREFECT_HOME": str(tmp_path / "shared")})
    prepare_environment()
    assert (tmp_path / "shared").stat().st_mode & 0o777 == 0o755 and not (tmp_path / ".prefect").exists()
