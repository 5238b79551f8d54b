"""A protocol's figures are the run's own where they were measured its way; otherwise a reason, never a number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bfr_models.errors import UsageError
from tasks.scoring.figures import figures
from tests import support

VGG, ALEX = ({"name": f"lpips_{trunk}", "sha256": "0" * 64} for trunk in ("vgg", "alex"))


def metrics(name: str, statistics: dict[str, Any], lpips: dict[str, str] = VGG, recogniser: str = "dlib") -> Any:
    settings = {"recogniser": {"name": recogniser, "sha256": "0" * 64}, "measures": {"lpips": lpips}}
    return figures(name, settings, statistics)["metrics"]


def test_the_network_has_to_be_the_protocols() -> None:
    statistics = {"lpips": {"mean": 0.4}, "identity_similarity": {"mean": 0.9}, "identity_degrees_gt": {"mean": 30.0}}
    assert metrics("vqfr", statistics)["lpips"]["value"] == 0.4
    of_alex = metrics("vqfr", statistics, ALEX)["lpips"]
    assert of_alex["value"] is None and "expected the network lpips_vgg, found lpips_alex" in of_alex["why"]
    assert metrics("default", statistics)["identity_similarity"]["network"] == "dlib"
    assert metrics("ntire2025", statistics)["identity_similarity"]["value"] is None
    assert metrics("ntire2025", statistics, recogniser="adaface_ir50_ms1mv2")["identity_similarity"]["value"] == 0.9
    assert metrics("vqfr", statistics)["deg"]["why"].startswith("expected the network arcface_resnet18, found dlib")
    assert metrics("vqfr", statistics, recogniser="arcface_resnet18")["deg"]["value"] == 30.0


@pytest.mark.parametrize(("protocol", "reference", "has_value"), [
    ("difface", "gt", True), ("difface", "ffhq.npz", False), ("vqfr", "gt", False), ("vqfr", "ffhq.npz", True),
])  # fmt: skip
def test_a_distance_has_to_be_to_the_protocols_reference(protocol: str, reference: str, has_value: bool) -> None:
    found = metrics(protocol, {"fid": {"value": 12.0, "reference": reference}})["fid"]
    assert (found["value"] == 12.0) == has_value
    assert has_value or "expected a distance to" in found["why"]


def test_what_a_run_could_not_measure_keeps_its_reason() -> None:
    assert metrics("vqfr", {"psnr": {"value": None, "why": "no ground truth"}})["psnr"]["why"] == "no ground truth"
    assert "--metrics" in metrics("vqfr", {})["niqe"]["why"]


def test_a_run_holds_its_protocols_figures_and_another_protocol_needs_no_other_run(tmp_path: Path) -> None:
    rows = support.make_rows(3)
    for row in rows:
        row["gt"] = row["image"]
    support.write_parquet(tmp_path / "src" / "a.parquet", rows)
    run = support.make_run(tmp_path, gt_column="gt", recogniser="none", lpips="none", metrics=("niqe",))
    record = support.finished_run(run)
    figure = record["protocol"]["metrics"]
    assert record["protocol"]["name"] == "default" and figure["ssim"]["value"] == record["statistics"]["ssim"]["mean"]
    assert figure["niqe"]["value"] is None and "192 px" in figure["niqe"]["why"]  # these faces are smaller
    assert "ms_ssim" not in record["statistics"]
    again = support.finished_run(run.model_copy(update={"protocol": "ntire2025", "metrics": ("niqe",)}))
    assert again["protocol"]["name"] == "ntire2025" and again["finished"] == record["finished"]
    assert again["protocol"]["metrics"]["musiq"]["value"] is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metrics": ("vif",)}, "unknown metric 'vif'; known: ms_ssim, niqe, lmd"),
        ({"protocol": "vqgan"}, "unknown protocol 'vqgan'"),
    ],
)
def test_unknown_names_are_refused_before_any_work(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        support.check_run(support.make_run(tmp_path, **settings))
