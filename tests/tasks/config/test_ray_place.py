"""Where Ray is to work is checked before Ray is imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from bfr_models.errors import UsageError
from tasks.config.ray_place import LONGEST, require_ray_place


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://127.0.0.1:8265", "HOST:PORT of a cluster's head .* found http://127.0.0.1:8265, as its dashboard"),
        ("10.1.2.3", "expected RAY_ADDRESS as HOST:PORT, ray://HOST:PORT, auto or local, found '10.1.2.3'"),
        ("10.1.2.3:many", "found '10.1.2.3:many'"),
        ("127.0.0.1:9", r"RAY_ADDRESS=127.0.0.1:9, found nothing that answers .*; start it, or unset RAY_ADDRESS"),
        ("ray://127.0.0.1:9", "found nothing that answers"),
    ],
)
def test_an_address_that_is_none_is_refused(address: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UsageError, match=message):
        require_ray_place()


@pytest.mark.parametrize("address", ["", "local"])
def test_a_cluster_of_this_machine_needs_a_short_folder_that_can_be_written(
    address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    require_ray_place()
    monkeypatch.setenv("RAY_TMPDIR", "/" + "x" * LONGEST)
    with pytest.raises(UsageError, match=rf"at most {LONGEST} characters .* found {LONGEST + 1}: .*--engine local"):
        require_ray_place()
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tasks.config.ray_place.LONGEST", 200)
    monkeypatch.setenv("RAY_TMPDIR", "file/ray")
    with pytest.raises(UsageError, match=f"that this user can write, found {tmp_path}/file; set RAY_TMPDIR"):
        require_ray_place()


def test_a_hook_of_somebody_elses_ray_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_RUNTIME_ENV_HOOK", "no_such_module.hook")
    with pytest.raises(UsageError, match=r"RAY_RUNTIME_ENV_HOOK=no_such_module\.hook, found no module no_such_module"):
        require_ray_place()
    monkeypatch.setenv("RAY_RUNTIME_ENV_HOOK", "os.path.join")
    require_ray_place()
