"""What run.json says about the licences of the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bfr_models.methods.difface_presets import DIFFACE
from bfr_models.weights.tensors import parameters_of, save_weights
from tasks.config.licences import licences_in_use
from tasks.config.resolve import resolve_run
from tests import support


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BFR_WEIGHTS", str(tmp_path / "cache"))
    return tmp_path / "cache"


def keep(cache: Path, stem: str, **card: object) -> str:
    """Some weights under the name of others; nothing loads them here."""
    return save_weights(parameters_of(torch.nn.Linear(1, 1)), card, cache / f"{stem}.safetensors")


def by_name(folder: Path, method: str = "difface", **settings: Any) -> dict[str, dict[str, Any]]:
    found = licences_in_use(resolve_run(support.make_run(folder, method, **{"recogniser": "none", **settings})))
    return {terms.pop("weights"): terms for terms in found}


@pytest.mark.parametrize("preset", ["ffhq512", "ffhq512-mse"])
def test_published_weights_say_that_they_are_non_commercial(preset: str, cache: Path, tmp_path: Path) -> None:
    (chosen,) = (p for p in DIFFACE if p.name == preset)
    for stem in chosen.weights.values():
        keep(cache, stem)
    found = by_name(tmp_path, preset=preset)
    assert found.keys() == {f"difface/{preset}/estimator", "difface/ffhq512/prior"}
    assert all(terms["non_commercial"] and terms["licence"] == "S-Lab License 1.0" for terms in found.values())
    assert all(terms["licence_url"].startswith("https://") for terms in found.values())


def test_a_card_has_the_last_word(cache: Path, tmp_path: Path) -> None:
    for component in ("estimator", "prior"):
        keep(cache, f"difface-ffhq512-{component}", licence="MIT", non_commercial=False)
    found = by_name(tmp_path, preset="ffhq512")
    assert [(terms["licence"], terms["non_commercial"]) for terms in found.values()] == [("MIT", False)] * 2


def test_recogniser_and_detector_are_among_them(cache: Path, tmp_path: Path) -> None:
    keep(cache, "facexlib-arcface")
    keep(cache, "facexlib-retinaface-mobilenet")
    found = by_name(tmp_path, "passthrough", recogniser="arcface", input="photos", detector="retinaface")
    assert {name: terms["licence"] for name, terms in found.items()} == {
        "facexlib/arcface": "MIT", "facexlib/retinaface-mobilenet": "MIT",
    }  # fmt: skip
    keep(cache, "adaface-ir50-ms1mv2")
    assert by_name(tmp_path, "passthrough", recogniser="adaface")["adaface/ir50-ms1mv2"]["licence"] == "MIT"
    own = tmp_path / "mine.pth"
    own.write_bytes(b"weights")
    found = by_name(tmp_path, "passthrough", input="photos", detector="retinaface", detector_weights=str(own))
    assert found == {"mine": {"licence": None, "licence_url": None, "non_commercial": None}}


def test_a_run_writes_them_down(tmp_path: Path) -> None:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(1))
    record = support.finished_run(support.make_run(tmp_path, "difface", recogniser="none", options={"steps": 1}))
    assert record["licences"] == [
        {"weights": f"difface-face128-{name}", "licence": "Apache-2.0", "licence_url": None, "non_commercial": None}
        for name in ("estimator_unet", "prior")
    ]
    assert json.loads((tmp_path / "dst" / "run.json").read_text()) == record
    assert "Licences of the weights" in (tmp_path / "dst" / "report" / "index.html").read_text()


def test_networks_that_score_are_listed_where_they_are_here(cache: Path, tmp_path: Path) -> None:
    assert "fid/inception" not in by_name(tmp_path, "passthrough", gt_column="gt")
    for stem in ("fid-inception", "lpips-alexnet", "lpips-vgg16"):
        keep(cache, stem)
    assert by_name(tmp_path, "passthrough", gt_column="gt").keys() == {"fid/inception", "lpips/vgg16"}
    assert by_name(tmp_path, "passthrough", fid="none").keys() == set()  # LPIPS has nothing to compare with
