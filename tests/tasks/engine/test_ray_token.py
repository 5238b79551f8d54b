"""Who may run code on a cluster: the token's file, and clusters that ask for none."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bfr_models.errors import UsageError
from tasks.config.environment import prepare_environment
from tasks.engine.ray_cluster import warn_if_open
from tasks.engine.ray_token import is_open, prepare_token
from tests.support import ROOT

OPEN_CLUSTER = """
import ray
from tasks.engine.ray_token import is_open
context = ray.init("local", num_cpus=1, include_dashboard=False, object_store_memory=80 * 2**20, log_to_driver=False)
print("open:", is_open(context.address_info["gcs_address"]))
from tasks.engine.ray_cluster import warn_if_open
warn_if_open()
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, with nothing set for Ray."""
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_HOME", raising=False)
    return tmp_path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_token_of_a_cluster_of_our_own_is_nobody_elses(home: Path) -> None:
    before = os.umask(0)
    try:
        prepare_environment()
        prepare_token()
    finally:
        os.umask(before)
    token = home / ".local/state/bfr/ray_token"
    assert os.environ["RAY_AUTH_MODE"] == "token" and os.environ["RAY_AUTH_TOKEN_PATH"] == str(token)
    assert mode(token) == 0o600 and mode(token.parent) == 0o700 and len(token.read_text()) == 64
    said = token.read_text()
    token.chmod(0o644)
    prepare_token()
    assert mode(token) == 0o600 and token.read_text() == said and os.listdir(token.parent) == ["ray_token"]


def test_a_token_that_ray_left_readable_is_closed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "cluster:6379")
    (home / ".ray").mkdir()
    (home / ".ray/auth_token").write_text("secret")
    (home / ".ray/auth_token").chmod(0o644)
    prepare_environment()
    prepare_token()
    assert mode(home / ".ray/auth_token") == 0o600
    assert "RAY_AUTH_MODE" not in os.environ  # that of a cluster elsewhere is its owner's affair


def test_what_the_user_has_set_for_ray_stays(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 64)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    prepare_environment()
    prepare_token()
    assert os.environ["RAY_AUTH_MODE"] == "disabled" and os.listdir(home) == [".prefect"]


def test_a_token_that_has_no_place_is_said_with_what_to_do(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "file"))
    prepare_environment()
    with pytest.raises(UsageError, match=r"Ray's token at .*RAY_AUTH_TOKEN_PATH"):
        prepare_token()


def test_a_cluster_that_asks_for_a_token_is_not_warned_of(ray_cluster: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert os.environ["RAY_AUTH_MODE"] == "token" and not is_open(ray_cluster)
    warn_if_open()
    assert "warning" not in capfd.readouterr().err


@pytest.mark.long
def test_a_cluster_that_takes_anyone_is_warned_of() -> None:
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", OPEN_CLUSTER]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert "open: True" in done.stdout
    assert "warning: the Ray cluster at 127.0.0.1" in done.stderr and "--allow-open-cluster" in done.stderr
