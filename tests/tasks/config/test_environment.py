"""What a command sets in its environment before Prefect and Ray start, and what it leaves as it is."""

from __future__ import annotations

import os
import tempfile
import urllib.request
from pathlib import Path

import pytest

from tasks.config import environment
from tasks.config.environment import prepare_environment, wait_briefly


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


def test_ray_has_the_folder_that_python_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A /tmp that cannot be written, for example: Ray would take it all the same."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for given, taken in (({}, str(tmp_path)), ({"RAY_TMPDIR": "/scratch"}, "/scratch")):
        monkeypatch.setattr(os, "environ", {"HOME": str(tmp_path), **given})
        prepare_environment()
        assert os.environ["RAY_TMPDIR"] == taken


def test_certificates_that_are_not_there_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    prepare_environment()
    assert "SSL_CERT_FILE" not in os.environ and os.environ["SSL_CERT_DIR"] == str(tmp_path)


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


def test_an_account_without_a_home_and_a_name_gets_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"HOME": "/nowhere"})
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(environment, "_has_entry", lambda: False)
    prepare_environment()
    own = tmp_path / f"bfr-{os.getuid()}"
    assert own.stat().st_mode & 0o777 == 0o700
    found = {name: os.environ[name] for name in ("HOME", "PREFECT_HOME", "USER")}
    assert found == {"HOME": str(own), "PREFECT_HOME": f"{own}/prefect", "USER": f"uid-{os.getuid()}"}
    assert os.environ["RAY_AUTH_TOKEN_PATH"] == f"{own}/bfr/ray_token"


def test_a_folder_of_somebody_else_is_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"bfr-{os.getuid()}").symlink_to("/tmp")
    monkeypatch.setattr(os, "environ", {"HOME": "/nowhere"})
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    prepare_environment()
    assert Path(os.environ["HOME"]).parent == tmp_path and not Path(os.environ["HOME"]).is_symlink()


@pytest.mark.parametrize(
    ("own", "count"), [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "passive"}, None)]
)
def test_threads_wait_briefly_unless_the_user_has_said_how(
    own: dict[str, str], count: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that it is put back afterwards
        monkeypatch.delenv(name)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    wait_briefly()
    assert os.environ.get("GOMP_SPINCOUNT") == count
