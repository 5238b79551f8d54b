"""`bfr weights list | import | verify` and the exit codes of `fetch`."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from typer.testing import CliRunner, Result

from bfr_models.errors import BfrError, UsageError
from bfr_models.weights import catalogue
from bfr_models.weights.catalogue import WeightEntry
from bfr_models.weights.tensors import load_weights, read_checkpoint
from flows.cli.app import app
from flows.cli.weights import _Consent
from tasks.check_machine import check_machine
from tasks.fetch_weights import fetch_weights
from tasks.import_weights import import_weights

ESTIMATOR = {"module.conv.weight": torch.randn(2, 3), "module.conv.bias": torch.randn(2)}
PRIOR = {"out.weight": torch.randn(4, 4, dtype=torch.float64)}
KEPT = b"a file kept as it is"


def convert_estimator(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Strict, as the real ones are."""
    if state.keys() != ESTIMATOR.keys():
        raise ValueError(f"unexpected {sorted(state.keys() - ESTIMATOR.keys())}")
    return {name.removeprefix("module.conv."): value for name, value in state.items()}


def convert_prior(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if state.keys() != PRIOR.keys():
        raise BfrError("not a prior")
    return dict(state)


def entry(name: str, origin: str, sha256: str | None, converter: str | None = None) -> WeightEntry:
    return WeightEntry(
        name, "a net", origin, None, sha256, "L 1.0", "https://l", non_commercial=True,
        converter=converter and f"fake_conversion:{converter}",
    )  # fmt: skip


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    module = ModuleType("fake_conversion")
    module.convert_estimator, module.convert_prior = convert_estimator, convert_prior  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fake_conversion", module)
    entries = (
        entry("net/512/estimator", "https://x/e.pth", None, "convert_estimator"),
        entry("net/512/prior", "https://x/p.pth", "0" * 64, "convert_prior"),
        entry("lib/kept", "https://x/kept.bin", hashlib.sha256(KEPT).hexdigest()),
    )
    monkeypatch.setattr(catalogue, "CATALOGUE", entries)
    monkeypatch.setenv("BFR_WEIGHTS", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def checkpoints(tmp_path: Path) -> tuple[Path, Path]:
    torch.save({"state_dict": ESTIMATOR, "epoch": 1}, tmp_path / "one.pth")
    save_file(PRIOR, tmp_path / "other.safetensors")
    return tmp_path / "one.pth", tmp_path / "other.safetensors"


def bfr(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["weights", *map(str, arguments)])


def test_each_file_is_recognised_and_converted_without_loss(cache: Path, checkpoints: tuple[Path, Path]) -> None:
    estimator, prior = import_weights("net", checkpoints)
    assert [estimator["name"], prior["name"]] == ["net/512/estimator", "net/512/prior"]
    assert estimator["source"]["trust"] == "imported, sha256 not known"
    assert prior["source"]["trust"] == "imported, another sha256"
    assert sorted(os.listdir(cache)) == [f"net-512-{name}" for name in (
        "estimator.json", "estimator.safetensors", "prior.json", "prior.safetensors"
    )]  # fmt: skip
    kept = read_checkpoint(cache / "net-512-prior.safetensors")["out.weight"]
    assert kept.dtype == torch.float64 and torch.equal(kept, PRIOR["out.weight"])
    network = torch.nn.Linear(3, 2)
    load_weights(network, cache / "net-512-estimator.safetensors")
    assert torch.equal(network.weight, ESTIMATOR["module.conv.weight"])


def test_the_card_says_whence_and_under_which_licence(cache: Path, checkpoints: tuple[Path, Path]) -> None:
    import_weights("net/512/estimator", checkpoints[:1])
    card = json.loads((cache / "net-512-estimator.json").read_text())
    data = (cache / "net-512-estimator.safetensors").read_bytes()
    source = checkpoints[0].read_bytes()
    assert (card["licence"], card["origin"], card["source"]["file"]) == ("L 1.0", "https://x/e.pth", "one.pth")
    assert (card["sha256"], card["bytes"]) == (hashlib.sha256(data).hexdigest(), len(data))
    assert (card["source"]["sha256"], card["source"]["bytes"]) == (hashlib.sha256(source).hexdigest(), len(source))


def test_a_file_kept_as_it_is_must_be_the_published_one(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "any name").write_bytes(KEPT)
    assert import_weights("lib", [tmp_path / "any name"])[0]["source"]["trust"] == "published sha256"
    assert (cache / "lib-kept.bin").read_bytes() == KEPT and (tmp_path / "any name").exists()
    (tmp_path / "any name").write_bytes(KEPT + b"!")
    with pytest.raises(UsageError, match=r"expected .*any name to be one of kept\.bin \(sha256 [0-9a-f]{64}\), found"):
        import_weights("lib", [tmp_path / "any name"])


def test_nothing_is_written_unless_every_file_is_recognised(cache: Path, checkpoints: tuple[Path, Path]) -> None:
    torch.save({"else": torch.zeros(1)}, checkpoints[0].with_name("third.pth"))
    third = checkpoints[0].with_name("third.pth")
    with pytest.raises(UsageError, match=r"third\.pth to be one of e\.pth .*, p\.pth .*: name one component"):
        import_weights("net", [*checkpoints, third])
    with pytest.raises(UsageError, match=r"third\.pth to be one of e\.pth .*unexpected \['else'\]"):
        import_weights("net/512/estimator", [third])
    with pytest.raises(UsageError, match=r"expected one file for net/512/estimator, found .*one\.pth and .*one\.pth"):
        import_weights("net", [checkpoints[0], checkpoints[0]])
    with pytest.raises(UsageError, match=r"expected weights at .*gone\.pth, found none"):
        import_weights("net", [checkpoints[0].with_name("gone.pth")])
    assert not cache.exists()


def test_a_file_that_fits_two_components_must_be_named(
    cache: Path, checkpoints: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["fake_conversion"], "convert_prior", dict)
    with pytest.raises(UsageError, match=r"one\.pth to be one of net/512/estimator, net/512/prior, found that it may"):
        import_weights("net", checkpoints[:1])
    assert import_weights("net/512/prior", checkpoints[:1])[0]["name"] == "net/512/prior"


def test_a_fetched_checkpoint_is_converted_too(cache: Path, tmp_path: Path) -> None:
    torch.save(ESTIMATOR, tmp_path / "e.pth")
    names, mirror = ["net/512/estimator"], str(tmp_path)
    fetched = fetch_weights(names, lambda _: True, mirror=mirror, trust_on_first_use=True)[0]
    assert fetched["converter"] == "fake_conversion:convert_estimator"
    assert sorted(read_checkpoint(Path(fetched["path"]))) == ["bias", "weight"]
    assert sorted(os.listdir(cache)) == ["net-512-estimator.json", "net-512-estimator.safetensors"]


def test_a_fetched_checkpoint_that_does_not_convert_is_not_kept(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "e.pth").write_bytes(b"<html>sign in first</html>")
    with pytest.raises(BfrError, match="expected a checkpoint of tensors"):
        fetch_weights(["net/512/estimator"], lambda _: True, mirror=str(tmp_path), trust_on_first_use=True)
    assert os.listdir(cache) == []


def test_fetch_asks_for_what_it_needs_with_exit_code_2(cache: Path) -> None:
    for arguments, advice in (
        (["net/512/prior"], "--accept-licence"),
        (["net/512/estimator", "--accept-licence"], "--trust-on-first-use"),
        (["nothing"], "known: net/512/estimator, net/512/prior, lib/kept"),
    ):
        result = bfr("fetch", *arguments)
        assert result.exit_code == 2 and advice in result.stderr
    assert "L 1.0, for non-commercial use only: https://l" in bfr("fetch", "net/512/prior").stderr


def test_a_licence_is_asked_for_once_on_a_terminal(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    questions: list[str] = []
    monkeypatch.setattr("typer.confirm", lambda text, err: questions.append(text) or len(questions) > 1)
    no, yes = _Consent(accepted=False), _Consent(accepted=False)
    assert [no(entry) for entry in catalogue.CATALOGUE] == [False] * 3
    assert [yes(entry) for entry in catalogue.CATALOGUE] == [True] * 3
    assert len(questions) == 2 and capsys.readouterr().err.count("https://l") == 2


def test_list_and_verify_tell_what_is_here(cache: Path, checkpoints: tuple[Path, Path]) -> None:
    assert bfr("import", "net", *checkpoints).exit_code == 0
    listed: dict[str, Any] = {row["name"]: row for row in json.loads(bfr("list", "--json").stdout)}
    assert listed["difface-face128-prior"]["state"] == listed["net/512/estimator"]["state"] == "present"
    assert listed["net/512/prior"]["state"] == "present" and listed["lib/kept"]["state"] == "absent"
    assert listed["net/512/prior"]["path"] == str(cache / "net-512-prior.safetensors")
    assert listed["lib/kept"]["licence"] == "L 1.0" and listed["difface-face128-prior"]["licence"] == "Apache-2.0"
    assert bfr("verify").exit_code == 0

    (cache / "net-512-prior.safetensors").write_bytes(b"rot")
    (cache / "net-512-estimator.json").write_text("rot")
    result = bfr("verify", "--json")
    damaged = {row["name"]: row["why"] for row in json.loads(result.stdout) if row["state"] == "damaged"}
    assert result.exit_code == 1 and damaged.keys() == {"net/512/prior", "net/512/estimator"}
    assert "expected sha256" in damaged["net/512/prior"] and "bfr weights fetch" in damaged["net/512/prior"]
    assert "difface-face128-prior" in bfr("list").stdout and "damaged" in bfr("verify").stdout
    states = {check.name: check.state for check in check_machine() if check.name.startswith("weights ")}
    assert states["weights net/512/prior"] == "bad" and states["weights difface-face128-prior"] == "ok"
