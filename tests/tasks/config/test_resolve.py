"""Which recogniser scores a run: by name or by what is installed, and never two of them in one destination."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from bfr_models.errors import BfrError, UsageError
from bfr_models.faces import recognisers
from bfr_models.faces.recognisers import ADAFACE_WEIGHTS, ARCFACE_WEIGHTS, choose_recogniser, load_recogniser
from bfr_models.networks import adaface, arcface, iresnet
from bfr_models.pixels import Uint8Image, face_tensor, to_uint8
from bfr_models.types import NetworkChoice
from bfr_models.weights.tensors import parameters_of, save_weights
from tasks.check_machine import check_machine
from tasks.config.resolve import resolve_run
from tasks.config.restore import RestoreRun
from tasks.worker.job import make_job
from tests import support


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BFR_WEIGHTS", str(tmp_path / "cache"))
    recognisers._loaded.cache_clear()
    return tmp_path / "cache"


@pytest.fixture
def arcface_weights(cache: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Random weights of an ArcFace with one block per stage; their sha256."""
    return small_weights(arcface.ArcFace, ARCFACE_WEIGHTS, cache, monkeypatch)


@pytest.fixture
def adaface_weights(cache: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same of an AdaFace."""
    return small_weights(adaface.AdaFace, ADAFACE_WEIGHTS, cache, monkeypatch)


def small_weights(
    network: Callable[[], torch.nn.Module], stem: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    monkeypatch.setattr(iresnet, "STAGES", tuple((channels, 1) for channels in (64, 128, 256, 512)))
    torch.manual_seed(0)
    return save_weights(parameters_of(network()), {}, cache / f"{stem}.safetensors")


def without_dlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recognisers, "dlib_is_here", lambda: False)


def test_auto_is_arcface_where_its_weights_are_then_dlib_then_none(
    cache: Path, arcface_weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert choose_recogniser("auto") == NetworkChoice("arcface_ir_se50", arcface_weights)
    (cache / f"{ARCFACE_WEIGHTS}.json").unlink()
    if recognisers.dlib_is_here():
        found = choose_recogniser("auto")
        assert found == choose_recogniser("dlib") and found is not None and found.name == "dlib_resnet_v1"
    without_dlib(monkeypatch)
    assert choose_recogniser("auto") is None


def test_one_that_is_named_and_not_here_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    without_dlib(monkeypatch)
    with pytest.raises(UsageError, match=r"bfr weights fetch facexlib/arcface`"):
        choose_recogniser("arcface")
    with pytest.raises(UsageError, match=r"by hand from https://.*`bfr weights import adaface adaface_ir50_ms1mv2"):
        choose_recogniser("adaface")
    with pytest.raises(UsageError, match="unknown recogniser 'facenet'; known: auto, none, arcface, adaface, dlib"):
        choose_recogniser("facenet")
    with pytest.raises(UsageError, match=r"pip install 'bfr-pipeline\[offline\]'"):
        choose_recogniser("dlib")
    assert choose_recogniser("none") is None


def test_another_file_than_the_chosen_one_is_refused(arcface_weights: str) -> None:
    loaded = load_recogniser(NetworkChoice("arcface_ir_se50", arcface_weights), "cpu")
    assert loaded is not None and loaded.sha256 == arcface_weights
    with pytest.raises(BfrError, match="every machine needs the same file"):
        load_recogniser(NetworkChoice("arcface_ir_se50", "0" * 64), "cpu")
    assert load_recogniser(None, "cpu") is None


def test_a_run_with_arcface_has_its_scores_name_and_checksum(arcface_weights: str, tmp_path: Path) -> None:
    rows = [row | {"gt": support.encoded(support.portrait(i + 1))} for i, row in enumerate(support.make_rows(6))]
    support.write_parquet(tmp_path / "src" / "a.parquet", rows)
    run = support.make_run(tmp_path, recogniser="arcface", gt_column="gt", batch_size=4, size="network")
    record = support.finished_run(run)
    assert record["recogniser"] == {"name": "arcface_ir_se50", "sha256": arcface_weights}
    assert record["statistics"]["identity_similarity"]["n"] == record["statistics"]["identity_similarity_gt"]["n"] == 6
    recogniser = load_recogniser(NetworkChoice("arcface_ir_se50", arcface_weights), "cpu")
    assert recogniser is not None
    for i, row in enumerate(support.read_table(tmp_path / "dst" / "data").to_pylist()):
        (lq, gt) = (to_uint8(face_tensor(support.portrait(number), 128)) for number in (i, i + 1))
        restored, other = recogniser.embed([support.decoded(row["restored"]["bytes"]), gt])
        assert row["identity_similarity_gt"] == pytest.approx(float(restored @ other), abs=1e-5)
        assert row["identity_similarity"] == 1 and np.array_equal(support.decoded(row["restored"]["bytes"]), lq)


def test_a_run_is_not_continued_with_another_recogniser(arcface_weights: str, tmp_path: Path) -> None:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(4))
    support.finished_run(support.make_run(tmp_path, recogniser="arcface"))
    with pytest.raises(UsageError, match=r"recogniser\.name: expected \"arcface_ir_se50\", found null"):
        support.check_run(support.make_run(tmp_path, recogniser="none"))
    support.check_run(support.make_run(tmp_path))  # auto is the same one


def test_without_one_the_record_says_why_and_a_threshold_is_refused(tmp_path: Path) -> None:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(2))
    record = support.finished_run(support.make_run(tmp_path, recogniser="none"))
    assert record["recogniser"] is None
    assert "no face recogniser scored this run" in record["statistics"]["identity_similarity"]["why"]
    with pytest.raises(UsageError, match=r"expected a face recogniser for --min-identity 0\.5, found none"):
        support.check_run(support.make_run(tmp_path, recogniser="none", min_identity=0.5))


def gated(folder: Path, min_identity: float | str, recogniser: str = "adaface") -> dict[str, Any]:
    return support.check_run(support.make_run(folder, recogniser=recogniser, min_identity=min_identity))


class TestMinIdentity:
    """A number, or a profile whose threshold holds for one recogniser."""

    @pytest.fixture(autouse=True)
    def source(self, tmp_path: Path) -> None:
        support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(4))

    @pytest.mark.parametrize(("profile", "threshold"), [("celeba", 0.5), ("lfw", 0.6), ("wild", 0.3)])
    def test_a_profile_is_its_threshold(
        self, profile: str, threshold: float, adaface_weights: str, tmp_path: Path
    ) -> None:
        run = support.make_run(tmp_path, recogniser="adaface", min_identity=profile)
        assert support.check_run(run) == gated(tmp_path, threshold)
        assert make_job(resolve_run(run), "cpu", None).min_identity == threshold

    @pytest.mark.usefixtures("adaface_weights")
    def test_the_record_says_which_gate_it_was(self, tmp_path: Path) -> None:
        record = support.finished_run(support.make_run(tmp_path, recogniser="adaface", min_identity="webphoto"))
        assert record["arguments"]["min_identity"] == "webphoto"
        assert record["identity_gate"] == {
            "profile": "webphoto", "threshold": 0.3, "recogniser": "adaface_ir50_ms1mv2",
            "source": "NTIRE 2025 challenge on real-world face restoration (arXiv 2504.14600): its evaluation script",
        }  # fmt: skip
        again = support.make_run(tmp_path, recogniser="adaface", min_identity=0.3)
        assert support.finished_run(again)["totals"] == record["totals"]  # the same run: nothing is done

    @pytest.mark.usefixtures("arcface_weights")
    def test_the_record_of_a_number_and_of_none(self, tmp_path: Path) -> None:
        assert support.finished_run(support.make_run(tmp_path, recogniser="arcface"))["identity_gate"] is None
        other = support.make_run(tmp_path, recogniser="arcface", min_identity=0.25, destination=str(tmp_path / "other"))
        assert support.finished_run(other)["identity_gate"] == {
            "profile": None, "threshold": 0.25, "recogniser": "arcface_ir_se50", "source": "a number that was given",
        }  # fmt: skip

    @pytest.mark.usefixtures("arcface_weights")
    def test_a_profile_with_another_recogniser_is_refused_before_any_work(self, tmp_path: Path) -> None:
        for recogniser in ("arcface", "auto"):
            with pytest.raises(UsageError, match=r"the recogniser adaface_ir50_ms1mv2 .* found arcface_ir_se50"):
                support.finished_run(support.make_run(tmp_path, recogniser=recogniser, min_identity="celeba"))
        assert not (tmp_path / "dst").exists()
        gated(tmp_path, 0.5, "arcface")

    @pytest.mark.parametrize("given", ["0.25", 0.25, "-1", 1])
    def test_a_number_may_come_as_text(self, given: float | str, tmp_path: Path) -> None:
        assert support.make_run(tmp_path, min_identity=given).min_identity == float(given)

    @pytest.mark.parametrize("given", ["celebs", 1.5, "-2", "nan", ["celeba"]])
    def test_anything_else_is_answered_with_the_known_profiles(self, given: object, tmp_path: Path) -> None:
        known = "celeba, lfw, childhood, wild, webphoto"
        with pytest.raises(ValidationError, match=f"expected a number from -1 to 1, or one of the profiles {known}"):
            support.make_run(tmp_path, min_identity=given)

    def test_forms_and_files_know_of_both(self, tmp_path: Path) -> None:
        field = RestoreRun.model_json_schema()["properties"]["min_identity"]
        number, profile, nothing = field["anyOf"]
        assert (number["type"], number["minimum"], number["maximum"]) == ("number", -1, 1)
        assert profile["enum"] == ["celeba", "lfw", "childhood", "wild", "webphoto"] and nothing == {"type": "null"}
        for given in (0.25, "wild"):
            run = support.make_run(tmp_path, min_identity=given)
            assert RestoreRun.model_validate(json.loads(run.model_dump_json())) == run


class Counting:
    """Notes how many faces come at once."""

    name, sha256 = "counting", "0" * 64

    def __init__(self) -> None:
        self.calls: list[int] = []

    def embed(self, faces: list[Uint8Image]) -> NDArray[np.float32]:
        self.calls.append(len(faces))
        return np.stack([face.mean((0, 1)) for face in faces]).astype(np.float32)


def test_faces_of_a_batch_are_compared_in_one_call(
    tmp_path: Path, faulty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting()
    monkeypatch.setattr("tasks.scoring.scorer.load_recogniser", lambda *_: counting)
    support.write_parquet(
        tmp_path / "src" / "a.parquet", support.make_rows(8, first=1)
    )  # none of them its own mirror image
    support.finished_run(support.make_run(tmp_path, faulty, batch_size=8, shard_rows=8))
    assert counting.calls == [16]


def test_the_driver_names_the_recogniser_without_torch_or_dlib(tmp_path: Path) -> None:
    code = "import sys, bfr_models.faces.recognisers as r; print(r.choose_recogniser('auto')); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=support.ROOT)
    assert not {"torch", "dlib", "cv2"} & set(done.stdout.split())


def test_doctor_lists_detectors_and_recognisers(arcface_weights: str) -> None:
    found: dict[str, Any] = {check.name: check for check in check_machine()}
    assert found["recogniser arcface"].state == "ok" and ", the default" in found["recogniser arcface"].found
    assert found["detector retinaface"].state == "missing"
    assert "bfr weights fetch facexlib" in found["detector retinaface"].advice
    assert found["recogniser adaface"].state == "missing"
    assert "bfr weights import adaface" in found["recogniser adaface"].advice
    assert {"recogniser dlib", "detector dlib"} <= found.keys()
    assert json.dumps([check.__dict__ for check in found.values()])
