"""What is made of the environment before Prefect and Ray start."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tasks.config.environment import prepare_environment


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
